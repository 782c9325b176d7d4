// What a particle tells when it is pointed at: [kind, text] of each line.

import { said } from "./layer_colors.js";

export const tipLines = ({ data, particles, lens, frame }, i) => {
  const prompt = data.prompts[particles.prompt[i]];
  const token = prompt.tokens[particles.token[i]];
  const at = frame * particles.n + i;
  const found = lens.at(particles.prompt[i], frame, particles.token[i]);
  const part = particles.part[i];
  const lines = [
    ["label", token ? token.name : `particle ${i}`],
    ["", token ? `token ${particles.token[i]}${prompt.name && ` of ${prompt.name}`}` : ""],
    [
      "",
      part >= 0 ? data.part_names[part] : i >= particles.n - particles.nSums ? "sum so far" : "",
    ],
    ["", particles.norms[at] >= 0 ? `norm ${said(particles.norms[at])}` : ""],
    ["", found && part < 0 ? `predicts ${found.text}` : ""],
  ];
  return lines.filter(([, text]) => text);
};
