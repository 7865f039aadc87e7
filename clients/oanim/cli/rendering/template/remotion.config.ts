import { Config } from "@remotion/cli/config";

// Bundles in a quarter of the time that webpack takes; without this line it is webpack.
Config.setRspack(true);
