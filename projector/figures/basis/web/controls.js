// The row below the picture: play, the moment, the ReLU, and the picture as a file.

import { make } from "./text.js";

export class Controls {
  constructor(plane) {
    const { player, scene } = plane;
    this.element = make("div", "controls");
    this.playButton = make("button", "play");
    this.playButton.type = "button";
    this.playButton.dataset.control = "play";
    this.playButton.addEventListener("click", () => player.toggle());
    this.scrub = make("input");
    this.scrub.type = "range";
    this.scrub.min = "0";
    this.scrub.step = "0.01";
    this.scrub.dataset.control = "scrub";
    this.scrub.setAttribute("aria-label", "From before to after");
    this.scrub.addEventListener("input", () => {
      const to = Number(this.scrub.value);
      player.stop();
      player.go(to);
    });
    this.element.append(this.playButton, this.scrub);
    if (["toy", "neurons"].includes(scene.data.kind)) this.element.append(switchOf(plane));
    const save = make("button", "save", "PNG");
    save.type = "button";
    save.setAttribute("aria-label", "Save as PNG");
    save.title = "Save the picture as PNG";
    save.addEventListener("click", () => savePicture(plane.canvas, scene.data.title));
    this.element.append(save);
  }

  // `words`: how far it is, as screen readers say it.
  show({ t, end }, isPlaying, words) {
    this.scrub.max = String(end);
    this.scrub.value = String(t);
    this.scrub.setAttribute(
      "aria-valuetext",
      t > 1 ? `${Math.round(100 * (t - 1))} % of the ReLU` : words,
    );
    this.playButton.textContent = isPlaying ? "❚❚ Pause" : "▶ Play";
  }
}

function switchOf(plane) {
  const { scene } = plane;
  const label = make("label", "relu");
  const box = make("input");
  box.type = "checkbox";
  box.checked = scene.hasReLU;
  box.dataset.control = "relu";
  box.addEventListener("change", () => {
    scene.hasReLU = box.checked;
    scene.t = Math.min(scene.t, scene.end);
    plane.follow();
  });
  label.append(box, make("span", "", scene.isToy ? "ReLU after the matrix" : "Positive orthant"));
  return label;
}

function savePicture(canvas, title) {
  const link = make("a");
  link.download = `${title.replace(/[^\w.]+/g, "-").replace(/^-+|-+$/g, "")}.png`;
  link.href = canvas.toDataURL("image/png");
  link.click();
}
