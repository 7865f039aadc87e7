// What the tests render: frames whose colour says which props and which frame they were drawn with.
import React from "react";
import { Composition, registerRoot, useCurrentFrame, useVideoConfig } from "remotion";

type Props = { colour: string; failAt: number; busyMs: number };

const Plain: React.FC<Props> = ({ colour, failAt, busyMs }) => {
  const frame = useCurrentFrame();
  const { width, height, fps } = useVideoConfig();
  if (frame === failAt) {
    throw new Error("this frame cannot be drawn");
  }
  const until = Date.now() + busyMs;
  while (Date.now() < until) {
    // Somebody's animation takes its time.
  }
  // The left half of a picture of 320x180 is white, whatever size it is scaled to.
  return (
    <div style={{ width, height, backgroundColor: colour }} data-fps={fps}>
      <div style={{ width: 160, height: 180, backgroundColor: "white" }} />
    </div>
  );
};

const defaultProps: Props = { colour: "#ff0000", failAt: -1, busyMs: 0 };
const shared = { component: Plain, width: 320, height: 180, fps: 30, defaultProps };

const ofSeconds = ({ props }: { props: Record<string, unknown> }) => ({
  durationInFrames: Number(props.seconds ?? 1) * 30,
});

registerRoot(() => (
  <>
    <Composition {...shared} id="Plain" durationInFrames={30} calculateMetadata={ofSeconds} />
    <Composition {...shared} id="Still" durationInFrames={1} />
  </>
));
