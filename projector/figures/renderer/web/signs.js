// Play and pause as they are drawn on a button.

export const PLAY = "M4 2.5v11l10-5.5z";
export const PAUSE = "M3.5 2.5h3.5v11h-3.5zM9 2.5h3.5v11h-3.5z";

// Drawn, and no letter: some fonts show those as pictures of their own.
export const sign = (path) => {
  const space = "http://www.w3.org/2000/svg";
  const made = document.createElementNS(space, "svg");
  made.setAttribute("viewBox", "0 0 16 16");
  made.setAttribute("aria-hidden", "true");
  const drawn = document.createElementNS(space, "path");
  drawn.setAttribute("d", path);
  made.append(drawn);
  return made;
};
