// What the user chooses on a map or in the lists beside it: shown at once, then told to the server
// where there is one.

export class Choices {
  constructor(map) {
    this.map = map;
  }

  tell(name, value) {
    this.map.send.setTriggerValue(name, value);
  }

  redo(panel) {
    panel.emphasis = null;
    this.map.draw();
  }

  pick(index, neuron) {
    const { panels } = this.map;
    const panel = panels[index];
    if (panel.only && neuron !== panel.selected) panel.only = false;
    for (const each of panels) {
      if (each.selected === null || each.selected === undefined) continue;
      Object.assign(each, { selected: null, near: [], only: false });
      this.redo(each);
    }
    panel.selected = neuron;
    this.redo(panel);
    this.map.showBeside();
    this.tell("picked", { panel: index, neuron });
  }

  choose(index, group) {
    const panel = this.map.panels[index];
    panel.group = panel.group === group ? null : group;
    this.map.focused = null;
    this.redo(panel);
    this.map.beside.light(panel.group);
    const pole = panel.group === null ? null : panel.groups[group].number;
    this.tell("chosen", { panel: index, pole });
  }

  // A group that is pointed at in the list.
  focus(index, group) {
    const before = this.map.focused;
    this.map.focused = group === null ? null : { panel: index, group };
    if ((before && before.group) !== group) this.map.draw();
  }

  pointAt(index, neuron) {
    this.map.panels[index].pointed = neuron;
    this.map.draw();
  }

  isolate(index, neuron) {
    const panel = this.map.panels[index];
    panel.only = neuron !== null;
    this.redo(panel);
    this.map.showBeside();
    this.tell("isolated", { panel: index, neuron });
  }

  mark(index, neurons) {
    this.map.panels[index].marked = neurons;
    this.redo(this.map.panels[index]);
    this.tell("marked", { panel: index, neurons });
  }
}
