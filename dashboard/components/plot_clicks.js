// Clicks on the cells of a Plotly heatmap, which Streamlit does not tell of: a click gives the row
// and the column, a double click resets the zoom. Nothing is drawn.

const CLOSE = 5; // Pixels that a pointer may move between press and release of a click.
const TWICE_MS = 320; // A second click within this makes a double click.
const BOUND = new WeakMap(); // element of the component → what takes its listeners away.

function cellAt(plot, event) {
  const area = plot.querySelector(".nsewdrag")?.getBoundingClientRect();
  // Plotly says nowhere else how far its axes reach.
  // oxlint-disable-next-line no-underscore-dangle
  const layout = plot._fullLayout;
  if (!area || !layout) return null;
  const across = (event.clientX - area.left) / area.width;
  const down = (event.clientY - area.top) / area.height;
  if (across < 0 || across > 1 || down < 0 || down > 1) return null;
  const [x0, x1] = layout.xaxis.range;
  const [y0, y1] = layout.yaxis.range;
  // The range of the second axis is from its lower end to its upper one.
  return [Math.round(y1 + (y0 - y1) * down), Math.round(x0 + (x1 - x0) * across)];
}

export default function ({ data, setTriggerValue, parentElement }) {
  BOUND.get(parentElement)?.();
  let pressed = null;
  let waiting = null;
  const plotOf = (event) =>
    event.target instanceof Element
      ? event.target.closest(`.st-key-${data.inside}`)?.querySelector(".js-plotly-plot")
      : null;

  function press(event) {
    const plot = event.button === 0 ? plotOf(event) : null;
    const isDrawn = plot && !event.target.closest(".modebar, .infolayer");
    pressed = isDrawn ? { plot, x: event.clientX, y: event.clientY } : null;
  }

  function release(event) {
    const from = pressed;
    pressed = null;
    if (!from) return;
    if (Math.hypot(event.clientX - from.x, event.clientY - from.y) > CLOSE) return;
    const cell = cellAt(from.plot, event);
    if (!cell) return;
    if (waiting) {
      clearTimeout(waiting);
      waiting = null;
      from.plot.querySelector('.modebar-btn[data-attr="zoom"][data-val="reset"]')?.click();
      return;
    }
    waiting = setTimeout(() => {
      waiting = null;
      setTriggerValue("cell", cell);
    }, TWICE_MS);
  }

  document.addEventListener("mousedown", press, true);
  window.addEventListener("mouseup", release, true);
  const unbind = () => {
    document.removeEventListener("mousedown", press, true);
    window.removeEventListener("mouseup", release, true);
    clearTimeout(waiting);
    BOUND.delete(parentElement);
  };
  BOUND.set(parentElement, unbind);
  return unbind;
}
