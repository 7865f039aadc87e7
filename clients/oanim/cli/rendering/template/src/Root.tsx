import { Composition } from "remotion";
import { Main, type MainProps } from "./Main";

const FPS = 30;
const SECONDS = 5;

const defaultProps: MainProps = {
  title: "Hello, motion",
  subtitle: "made with oanim",
  from: "#1b1464",
  to: "#ff4d6d",
};

export const Root = () => (
  <Composition
    id="Main"
    component={Main}
    width={1920}
    height={1080}
    fps={FPS}
    durationInFrames={SECONDS * FPS}
    defaultProps={defaultProps}
  />
);
