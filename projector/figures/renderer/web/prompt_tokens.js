// The tokens of one prompt or two as running text: each wears its particle's colour, and a click
// takes it in hand.

import { Roving } from "./roving.js";
import { element } from "./store.js";

export class PromptTokens {
  // `pick(prompt, token)` takes one in hand; `point(prompt, token)` only shows where it is.
  constructor(place, { pick, point }) {
    Object.assign(this, { place, pick, point });
    this.rows = [];
    this.roving = new Roving();
  }

  show(prompts) {
    this.rows = prompts.map(({ tokens }, prompt) =>
      tokens.map((token, i) => this.chip(token, prompt, i, prompts[prompt].name)),
    );
    this.roving.show(this.rows.flat());
    this.place.replaceChildren(
      ...prompts.map(({ name, tokens }, k) => {
        const row = element("div", "prompt");
        const head = element("div", "prompt-head");
        head.append(
          element("span", "which", name ? `Prompt ${name}` : "Prompt"),
          element("span", "quiet", `${tokens.length} token${tokens.length === 1 ? "" : "s"}`),
        );
        const text = element("div", "chips");
        // A line ends behind the token that ends it: within a chip it would break the chip.
        this.rows[k].forEach((chip, i) => {
          text.append(chip);
          if (tokens[i].text.includes("\n")) text.append(element("br"));
        });
        row.append(head, text);
        return row;
      }),
    );
  }

  chip(token, prompt, i, promptName) {
    const made = element(
      "span",
      token.made ? "chip made" : "chip",
      token.text.replaceAll("\n", ""),
    );
    made.dataset.prompt = String(prompt);
    made.dataset.token = String(i);
    made.title = `token ${i}${token.made ? ", added by the tokenizer or template" : ""}`;
    made.setAttribute("role", "button");
    made.setAttribute(
      "aria-label",
      `token ${i}${promptName && ` of ${promptName}`}, ${token.name}`,
    );
    // The keys stay with the player: a click moves no focus.
    made.onmousedown = (event) => event.preventDefault();
    made.onclick = () => this.pick(prompt, i);
    made.onmouseenter = () => this.point(prompt, i);
    made.onmouseleave = () => this.point(prompt, null);
    made.onfocus = () => this.point(prompt, i);
    made.onblur = () => this.point(prompt, null);
    return made;
  }

  // `colorOf(prompt, token)` as CSS; null for none.
  color(colorOf) {
    this.rows.forEach((chips, prompt) =>
      chips.forEach((chip, i) =>
        chip.style.setProperty("--own", colorOf(prompt, i) || "transparent"),
      ),
    );
  }

  // The token in hand, and those of the other prompt that belong to it.
  light(held, partners) {
    this.rows.forEach((chips, prompt) =>
      chips.forEach((chip, i) => {
        const isHeld = held !== null && held.prompt === prompt && held.token === i;
        chip.classList.toggle("held", isHeld);
        chip.setAttribute("aria-pressed", String(isHeld));
        chip.classList.toggle(
          "partner",
          partners.some((each) => each.prompt === prompt && each.token === i),
        );
        if (!isHeld) return;
        this.reveal(chip);
        this.roving.stay(chip);
      }),
    );
  }

  reveal(chip) {
    const { place } = this;
    const [top, bottom] = [chip.offsetTop, chip.offsetTop + chip.offsetHeight];
    if (top < place.scrollTop || bottom > place.scrollTop + place.clientHeight)
      place.scrollTop = Math.max(0, top - place.clientHeight / 2);
  }
}
