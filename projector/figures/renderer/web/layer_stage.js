// The stage of particles: what lies below them is drawn anew only where it changed.

import { Stage } from "./stage.js";
import { element } from "./store.js";

export class LayerStage extends Stage {
  tool(...given) {
    const made = super.tool(...given);
    // The keys stay with the player: a click moves no focus.
    made.onmousedown = (event) => event.preventDefault();
    return made;
  }

  // Pens of the canvases below and above the points, in CSS pixels; null where there is no room. The
  // one above is cleared; the one below stays as it is while `below` says the same of it, for what is
  // sent to the screen anew costs as much as what is drawn: then there is no pen of it.
  begin(below) {
    const room = this.fit();
    if (!room) return null;
    const isSame = this.drawnBelow === below && !room.isOther;
    this.drawnBelow = below;
    return {
      ...room,
      below: isSame ? null : this.pen(this.under, room),
      above: this.pen(this.overlay, room),
    };
  }

  hintText(key) {
    return `Hold ${key} and turn the wheel to zoom`;
  }

  // Lines of text, each with its kind.
  showTip(lines, event) {
    super.showTip(
      lines.map(([kind, text]) => element("div", kind, text)),
      event,
    );
  }
}
