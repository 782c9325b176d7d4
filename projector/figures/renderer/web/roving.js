// Many controls of which one takes part in the Tab order, and keys move among them.

const STEPS = { ArrowUp: -1, ArrowDown: 1 };

export class Roving {
  constructor() {
    this.all = [];
  }

  // Those that are there now.
  show(all) {
    this.all = all;
    for (const each of all) each.onkeydown = (event) => this.key(event);
    this.stay(this.all[0]);
  }

  // The one that Tab comes to.
  stay(one) {
    for (const each of this.all) each.tabIndex = each === one ? 0 : -1;
  }

  // Up and down: what is at the left and right is the player's.
  key(event) {
    const at = this.all.indexOf(event.currentTarget);
    const other = this.all[at + (STEPS[event.key] || 0)];
    if (event.key in STEPS) {
      if (other) {
        this.stay(other);
        other.focus();
      }
    } else if (event.key === "Enter" || event.key === " ") event.currentTarget.onclick(event);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
