// What the user does with keys: turn, zoom, and step through tokens or layers.
//
// `steps` is what a view steps through: `length`; `current`, a whole number; `goTo(k, tell)`;
// `playing`; `play(on)`. A view has `host`, within which the keys are its own; `overlay`; `camera`;
// `draw()`; `resetCamera()`; and may have `escape()`, which says whether there was something to leave.

const TURN = 15; // Pixels of a drag that a key stands for.
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const BRACKETS = { "[": -1, "]": 1 };

export class Keys {
  constructor(view, steps) {
    this.view = view;
    this.steps = steps;
    this.listener = (event) => this.key(event);
    view.host.addEventListener("keydown", this.listener);
    // Where nothing has the focus, what is stepped through has the keys while it is seen; up and down
    // scroll the page.
    this.anywhere = (event) => {
      const isFree = event.target === document.body || event.target === document.documentElement;
      const isScroll = event.key === "ArrowUp" || event.key === "ArrowDown";
      if (isFree && !isScroll && steps.length > 1 && isSeen(view.overlay)) this.key(event);
    };
    document.addEventListener("keydown", this.anywhere);
  }

  key(event) {
    // Those are the browser's; but AltGr types [ and ] on many keyboards.
    const isTyped = event.key in BRACKETS && event.getModifierState("AltGraph");
    if ((event.ctrlKey || event.metaKey || event.altKey) && !isTyped) return;
    if (!this.step(event) && !this.look(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  // Whether the key is of what is stepped through.
  step(event) {
    const { steps } = this;
    if (!(steps.length > 1)) return false;
    if (event.key === " ") {
      if (isPressed(event)) return false;
      steps.play(!steps.playing);
      return true;
    }
    if (isGiven(event)) return false;
    const [aside] = (!event.shiftKey && ARROWS[event.key]) || [BRACKETS[event.key] || 0];
    if (aside) steps.goTo(steps.current + aside, true);
    else if (event.key === "Home") steps.goTo(0, true);
    else if (event.key === "End") steps.goTo(steps.length - 1, true);
    else return false;
    return true;
  }

  // Whether the key is of the camera.
  look(event) {
    const { view } = this;
    const arrow = ARROWS[event.key];
    if (arrow && !isGiven(event) && !isPressed(event))
      view.camera.turn(arrow[0] * TURN, arrow[1] * TURN, view.overlay.clientHeight, false);
    else if (event.key === "+" || event.key === "=") view.camera.zoomBy(1.2);
    else if (event.key === "-") view.camera.zoomBy(1 / 1.2);
    else if (event.key === "r" || event.key === "R") view.resetCamera();
    else return event.key === "Escape" && Boolean(view.escape && view.escape());
    view.draw();
    return true;
  }

  destroy() {
    this.view.host.removeEventListener("keydown", this.listener);
    document.removeEventListener("keydown", this.anywhere);
  }
}

// A control that has this key itself: of those for choosing only a field of text has the brackets.
const isGiven = ({ key, target }) => {
  const isChosen =
    target.tagName === "SELECT" || (target.tagName === "INPUT" && target.type === "range");
  return isChosen
    ? !(key in BRACKETS)
    : target.tagName === "INPUT" || target.tagName === "TEXTAREA";
};

const isPressed = (event) =>
  event.target.tagName === "BUTTON" || event.target.classList.contains("row");

// Whether any of it is in the window.
const isSeen = (place) => {
  const { top, bottom, left, right } = place.getBoundingClientRect();
  return bottom > 0 && right > 0 && top < window.innerHeight && left < window.innerWidth;
};
