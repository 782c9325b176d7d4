// What is drawn in a place of a page stays there while the page is updated.

const GONE_MS = 1000;
const INSTANCES = new WeakMap(); // root → what is drawn in it.

// Draws a component's data in its root, by what `make(root)` made there when it was new: it has
// `update(component)` and `destroy()`. Gives what takes it down.
export const mounted = (component, make) => {
  const root = component.parentElement;
  let found = INSTANCES.get(root);
  if (!found) {
    found = { drawn: make(root), leaving: 0 };
    INSTANCES.set(root, found);
  }
  clearTimeout(found.leaving);
  found.drawn.update(component);
  return () => {
    // Called before every update too: only what is not drawn again has gone.
    found.leaving = setTimeout(() => {
      found.drawn.destroy();
      INSTANCES.delete(root);
    }, GONE_MS);
  };
};
