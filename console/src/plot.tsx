// A line over time, in SVG.

const WIDTH = 320;
const HEIGHT = 90;

interface Point {
  time: number;
  value: number | null;
}

interface PlotProps {
  title: string;
  points: Point[];
  text: (value: number) => string;
}

export function Plot({ title, points, text }: PlotProps) {
  const values = points.map((each) => each.value).filter((each) => each !== null);
  const most = Math.max(...values, 0);
  const last = values.at(-1);
  const said = last === undefined ? "–" : text(last);
  return (
    <figure class="plot">
      <figcaption>
        <span>{title}</span>
        <strong>{said}</strong>
        <span class="dim">at most {text(most)}</span>
      </figcaption>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`${title}: now ${said}, at most ${text(most)}`}
      >
        <line class="base" x1="0" x2={WIDTH} y1={HEIGHT - 1} y2={HEIGHT - 1} />
        <line class="grid" x1="0" x2={WIDTH} y1={HEIGHT / 2} y2={HEIGHT / 2} />
        <path class="area" d={area(points, most)} />
        <path class="curve" d={curve(points, most)} vector-effect="non-scaling-stroke" />
      </svg>
    </figure>
  );
}

function places(points: Point[], most: number): [number, number][] {
  const first = points[0]?.time ?? 0;
  // A minute at least, so that the first samples do not fill the plot.
  const span = Math.max(60_000, (points.at(-1)?.time ?? 0) - first);
  const top = most || 1;
  return points
    .filter((each) => each.value !== null)
    .map((each) => [
      ((each.time - first) / span) * WIDTH,
      HEIGHT - 2 - ((each.value ?? 0) / top) * (HEIGHT - 8),
    ]);
}

function curve(points: Point[], most: number): string {
  return places(points, most)
    .map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`)
    .join("");
}

function area(points: Point[], most: number): string {
  const all = places(points, most);
  const [first, last] = [all[0], all.at(-1)];
  if (!first || !last) return "";
  return `${curve(points, most)}L${last[0].toFixed(1)} ${HEIGHT}L${first[0].toFixed(1)} ${HEIGHT}Z`;
}
