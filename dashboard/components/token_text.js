// A prompt as running text: a click on a token, or Enter, tells which it was.

const SHOWN = new WeakMap(); // root → what it shows, and how it tells of a click.

function press(root, event) {
  const number = Number(event.target.dataset?.number);
  if (!Number.isInteger(number) || event.ctrlKey || event.metaKey || event.altKey) return;
  const tokens = root.querySelectorAll("[data-number]");
  const to = { ArrowLeft: number - 1, ArrowRight: number + 1, Home: 0, End: tokens.length - 1 }[
    event.key
  ];
  if (event.key === "Enter" || event.key === " ") SHOWN.get(root).send("picked", number);
  else if (to === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  if (to === undefined || !tokens[to]) return;
  event.target.tabIndex = -1;
  tokens[to].tabIndex = 0;
  tokens[to].focus();
}

export default function (component) {
  const root = component.parentElement.querySelector(".token-text");
  const data = component.data;
  const text = typeof data === "string" ? data : new TextDecoder().decode(data);
  const before = SHOWN.get(root);
  if (!before) {
    root.addEventListener("keydown", (event) => press(root, event));
    root.addEventListener("click", (event) => {
      const number = event.target.dataset?.number;
      if (number !== undefined) SHOWN.get(root).send("picked", Number(number));
    });
  }
  SHOWN.set(root, { text, send: component.setTriggerValue });
  if (before?.text === text) return;
  const held = root.getRootNode().activeElement?.dataset?.number;
  const { tokens, selected } = JSON.parse(text);
  root.replaceChildren(
    ...tokens.map(([shown, fill, tip], number) => {
      const made = document.createElement("span");
      made.textContent = shown;
      made.title = tip;
      made.dataset.number = number;
      made.setAttribute("role", "button");
      made.setAttribute("aria-label", `${shown}: ${tip}`);
      made.setAttribute("aria-pressed", String(number === selected));
      made.tabIndex = number === selected ? 0 : -1;
      if (fill) made.style.background = fill;
      if (number === selected) made.className = "selected";
      return made;
    }),
  );
  const chosen = root.querySelector(".selected");
  const y = chosen ? chosen.offsetTop : root.scrollTop;
  if (y < root.scrollTop || y > root.scrollTop + root.clientHeight - 24)
    root.scrollTop = Math.max(0, y - root.clientHeight / 2);
  if (held !== undefined) root.querySelector(`[data-number="${held}"]`)?.focus();
  root.dataset.paintedAt = String(performance.timeOrigin + performance.now());
}
