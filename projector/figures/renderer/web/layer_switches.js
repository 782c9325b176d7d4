// What the picture shows: colours, trails, lines, partners, and the flat map as a density.

import { element } from "./store.js";

const SWITCHES = [
  ["trails", "Trails", "Where each particle came from"],
  ["lines", "Lines", "Lines to the nearest particles in full space"],
  ["partners", "Partners", "Lines between matching tokens of both prompts"],
  [
    "follow",
    "Follow scale",
    "Scale each frame to fill the view, about one centre; motion between layers then can’t be compared. Off: one scale for all frames",
  ],
  [
    "sums",
    "Fit sums",
    "Zoom out until all sums of contributions are visible; otherwise the view fits the contributions",
  ],
  [
    "density",
    "Density",
    "The first two dimensions as a density, on one scale of colours for all frames",
  ],
];

export class LayerSwitches {
  // `change(name, value)` tells of each.
  constructor(place, { change }) {
    Object.assign(this, { place, change });
  }

  show({ colorings, coloring, on, has }) {
    const label = element("label", "color-by");
    const choice = element("select");
    for (const { id, name } of colorings) {
      const option = element("option", "", name);
      option.value = id;
      option.selected = id === coloring;
      choice.append(option);
    }
    choice.onchange = () => {
      this.change("coloring", choice.value);
      // The keys are the player's again.
      choice.blur();
    };
    label.append(element("span", "", "Colour by"), choice);
    const switches = SWITCHES.filter(([id]) => has[id]).map(([id, name, title]) => {
      const made = element("button", "switch", name);
      made.dataset.name = id;
      made.title = title;
      made.setAttribute("aria-pressed", String(on[id]));
      made.onmousedown = (event) => event.preventDefault();
      made.onclick = () => {
        const isOn = made.getAttribute("aria-pressed") !== "true";
        made.setAttribute("aria-pressed", String(isOn));
        this.change(id, isOn);
      };
      return made;
    });
    this.buttons = switches;
    this.place.replaceChildren(label, ...switches);
  }

  set(name, isOn) {
    const found = this.buttons.find((each) => each.dataset.name === name);
    if (found) found.setAttribute("aria-pressed", String(isOn));
  }
  // A switch that has no meaning now can't be pressed.
  rest(name, isResting) {
    const found = this.buttons.find((each) => each.dataset.name === name);
    if (found) found.disabled = isResting;
  }
}
