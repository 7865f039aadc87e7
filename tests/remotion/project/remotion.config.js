const { Config } = require("@remotion/cli/config");

// As a new project has it.
Config.setRspack(true);
