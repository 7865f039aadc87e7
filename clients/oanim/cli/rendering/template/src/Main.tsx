import { AbsoluteFill, Easing, interpolate, spring, useCurrentFrame, useVideoConfig } from "remotion";

// A type, not an interface: Remotion passes props on as a record.
export type MainProps = {
  title: string;
  subtitle: string;
  from: string;
  to: string;
};

const clamp = { extrapolateLeft: "clamp", extrapolateRight: "clamp" } as const;

export const Main = ({ title, subtitle, from, to }: MainProps) => {
  const frame = useCurrentFrame();
  const { fps, width, height, durationInFrames } = useVideoConfig();
  // Everything is timed in seconds and measured in parts of the picture: it looks the same at any pace and size.
  const seconds = frame / fps;
  const length = durationInFrames / fps;
  const unit = Math.min(width, height) / 100;

  const fadeOut = interpolate(seconds, [length - 0.6, length], [1, 0], { ...clamp, easing: Easing.in(Easing.cubic) });
  const line = interpolate(seconds, [0.5, 1.3], [0, 1], { ...clamp, easing: Easing.inOut(Easing.cubic) });
  const below = interpolate(seconds, [0.9, 1.7], [0, 1], { ...clamp, easing: Easing.out(Easing.cubic) });

  return (
    <AbsoluteFill
      style={{
        background: `linear-gradient(${115 + seconds * 12}deg, ${from}, ${to})`,
        color: "white",
        fontFamily: "Inter, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif",
        overflow: "hidden",
      }}
    >
      <Glow x={0.22 + 0.05 * Math.sin(seconds * 0.9)} y={0.28} size={90 * unit} />
      <Glow x={0.8} y={0.74 + 0.06 * Math.cos(seconds * 0.7)} size={70 * unit} />

      <AbsoluteFill style={{ justifyContent: "center", alignItems: "center", opacity: fadeOut }}>
        <div style={{ fontSize: 11 * unit, fontWeight: 800, letterSpacing: -0.2 * unit, textAlign: "center" }}>
          {Array.from(title).map((letter, index) => (
            <Letter key={index} letter={letter} rise={spring({ frame, fps, delay: index * 0.04 * fps, config: { damping: 14 } })} />
          ))}
        </div>
        <div
          style={{
            width: 34 * unit * line,
            height: 0.5 * unit,
            margin: `${3 * unit}px 0`,
            borderRadius: unit,
            background: "rgba(255, 255, 255, 0.85)",
          }}
        />
        <div
          style={{
            fontSize: 4 * unit,
            fontWeight: 400,
            letterSpacing: 0.12 * unit * (2 - below),
            opacity: below * 0.9,
            transform: `translateY(${(1 - below) * 3 * unit}px)`,
          }}
        >
          {subtitle}
        </div>
      </AbsoluteFill>
    </AbsoluteFill>
  );
};

const Letter = ({ letter, rise }: { letter: string; rise: number }) => (
  <span
    style={{
      display: "inline-block",
      whiteSpace: "pre",
      opacity: Math.min(1, rise * 1.4),
      transform: `translateY(${(1 - rise) * 0.7}em) rotate(${(1 - rise) * 8}deg)`,
    }}
  >
    {letter}
  </span>
);

const Glow = ({ x, y, size }: { x: number; y: number; size: number }) => (
  <div
    style={{
      position: "absolute",
      left: `${x * 100}%`,
      top: `${y * 100}%`,
      width: size,
      height: size,
      transform: "translate(-50%, -50%)",
      borderRadius: "50%",
      background: "radial-gradient(circle, rgba(255, 255, 255, 0.28), rgba(255, 255, 255, 0) 65%)",
    }}
  />
);
