// The script of planes, which stands before this, as a component.

const ROOTS = new WeakMap(); // root → what takes it down, and when.

export default function (component) {
  const root = component.parentElement.querySelector(".plane");
  const data = component.data;
  const text = typeof data === "string" ? data : new TextDecoder().decode(data);
  const before = ROOTS.get(root);
  clearTimeout(before?.leaving);
  const own = { destroy: mount(root, JSON.parse(text), component.setTriggerValue) };
  ROOTS.set(root, own);
  return () => {
    // Called before every update too: only what is not drawn again has gone.
    own.leaving = setTimeout(own.destroy, 1000);
  };
}
