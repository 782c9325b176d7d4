// Signed bars, one a row. Rows that stand for something that can be chosen are buttons.

const DRAWN = new WeakMap(); // root → what it shows.
const SEND = new WeakMap(); // root → how it tells of a click now.

export default function (component) {
  const root = component.parentElement.querySelector(".part-bars");
  const data = component.data;
  const text = typeof data === "string" ? data : new TextDecoder().decode(data);
  SEND.set(root, component.setTriggerValue);
  if (DRAWN.get(root) === text) return;
  DRAWN.set(root, text);
  const held = root.getRootNode().activeElement?.dataset?.number;
  root.replaceChildren();
  JSON.parse(text).bars.forEach((bar, number) => {
    const row = document.createElement(bar.can_pick ? "button" : "div");
    row.className = bar.is_selected ? "row selected" : "row";
    row.dataset.number = number;
    row.title = bar.tip;
    const parts = ["name", "lane", "value"].map((name) => {
      const made = document.createElement("span");
      made.className = name;
      return made;
    });
    parts[0].textContent = bar.name;
    parts[2].textContent = bar.value;
    const drawn = document.createElement("span");
    drawn.className = bar.share < 0 ? "bar negative" : "bar positive";
    drawn.style.width = `${Math.min(1, Math.abs(bar.share)) * 50}%`;
    parts[1].append(drawn);
    if (bar.control.length) {
      // From −1 to 1, as the bars are: the middle of the lane is 0.
      const [low, high] = bar.control;
      const band = document.createElement("span");
      band.className = "control";
      band.style.left = `${50 + 50 * low}%`;
      band.style.width = `${Math.max(0.5, 50 * (high - low))}%`;
      parts[1].append(band);
    }
    if (bar.tip) row.setAttribute("aria-label", `${bar.name}: ${bar.tip}`);
    if (bar.can_pick) row.setAttribute("aria-pressed", String(bar.is_selected));
    else row.setAttribute("role", "img");
    row.append(...parts);
    if (bar.can_pick) row.addEventListener("click", () => SEND.get(root)("picked", number));
    root.append(row);
  });
  if (held !== undefined) root.querySelector(`button[data-number="${held}"]`)?.focus();
  root.dataset.paintedAt = String(performance.timeOrigin + performance.now());
}
