// A plane before and after a linear map, animated between the two.

// Draws `data`, a PlaneView as JSON, into `root`; gives a function that takes it down.
export function mount(root, data) {
  root.replaceChildren();
  const title = document.createElement("p");
  title.textContent = String(data.title ?? "");
  root.append(title);
  return () => root.replaceChildren();
}
