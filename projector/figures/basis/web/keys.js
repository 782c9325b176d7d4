// Keys: Space plays and pauses; arrows move the moment, or the tip that has the focus.

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export function press(plane, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { player, scene, toy } = plane;
  const control = event.target.dataset?.control ?? "";
  const handle = toy?.handles.find((each) => each.element === event.target);
  const step = STEPS[event.key];
  if (event.key === " " && (handle || control === "canvas" || control === "scrub")) player.toggle();
  else if (handle && step) handle.nudge(...step.map((way) => way * (event.shiftKey ? 0.01 : 0.1)));
  else if (step && (control === "canvas" || control === "scrub")) {
    player.stop();
    player.go(Math.round(20 * scene.t + step[0] + step[1]) / 20);
  } else return;
  // The page's own keys are not meant.
  event.preventDefault();
  event.stopPropagation();
}
