// Share and the files. The server says in props.value what they are made of:
// {link} while the columns fill, and {link, name, markdown, json, picture} after.
const buttons = [...element.querySelectorAll("button")];
const reply = element.querySelector(".reply");
const field = reply.querySelector("input");
const status = reply.querySelector("p");

const acts = {
  share,
  markdown: () => save(new Blob([props.value.markdown], { type: "text/markdown" }), "md"),
  json: () => save(new Blob([props.value.json], { type: "application/json" }), "json"),
  picture: () => draw(props.value.picture).toBlob((blob) => save(blob, "png"), "image/png"),
};

function update() {
  for (const button of buttons) {
    button.disabled = button.dataset.act === "share" ? !props.value : !props.value?.json;
  }
  // An address with a prompt must not stay behind what the page shows.
  if (props.value && new URLSearchParams(location.search).has("prompt")) {
    history.replaceState(history.state, "", address());
  }
}

function address() {
  return new URL(props.value.link, location.href).href;
}

async function share(button) {
  history.replaceState(history.state, "", address());
  field.value = address();
  const copied = await copy(field.value);
  status.textContent = copied ? "Link copied" : "Copy this link:";
  reply.showPopover();
  const place = button.getBoundingClientRect();
  reply.style.top = `${place.bottom + scrollY + 8}px`;
  reply.style.left = `${Math.max(20, place.right - reply.offsetWidth)}px`;
  field.select();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Browsers keep the clipboard from pages that come without encryption, as in a school's own network.
    return false;
  }
}

function save(blob, kind) {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = `${props.value.name}.${kind}`;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
}

// The picture: the page's look, at a width of its own. All measures in pixels of the page.
const SHARPNESS = 2;
const MARGIN = 48;
const GAP = 48;
const COLUMN = 368;
const LINE = 27;
const MOST_LINES = { prompt: 8, answer: 24 };

function draw({ prompt, note, scale, columns }) {
  const css = getComputedStyle(element);
  const colour = (name) => css.getPropertyValue(`--${name}`).trim();
  const font = (size, weight = 400) => `${weight} ${size}px ${css.fontFamily}`;
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d");

  // Never narrower than two columns: the prompt needs room.
  const width = 2 * MARGIN + Math.max(2, columns.length) * (COLUMN + GAP) - GAP;
  const column = (width - 2 * MARGIN - (columns.length - 1) * GAP) / columns.length;
  pen.font = font(24, 700);
  const asked = lines(pen, prompt, width - 2 * MARGIN, MOST_LINES.prompt);
  pen.font = font(18);
  const answers = columns.map(({ text }) => lines(pen, text, column, MOST_LINES.answer));

  const top = MARGIN + 44 + asked.length * 32 + 30;
  const figures = top + 62 + Math.max(...answers.map((answer) => answer.length)) * LINE + 18;
  const height = figures + 130 + 54;
  canvas.width = width * SHARPNESS;
  canvas.height = height * SHARPNESS;
  pen.scale(SHARPNESS, SHARPNESS);

  const box = (x, y, wide, high, name) => {
    pen.fillStyle = colour(name);
    pen.fillRect(x, y, wide, high);
  };
  const write = (text, x, y, size, name, weight = 400, align = "left") => {
    pen.font = font(size, weight);
    pen.fillStyle = colour(name);
    pen.textAlign = align;
    pen.fillText(text, x, y);
    return pen.measureText(text).width;
  };

  box(0, 0, width, height, "ground");
  write("Stagewise", MARGIN, MARGIN + 14, 15, "ink", 700);
  write(note, width - MARGIN, MARGIN + 14, 15, "quiet", 400, "right");
  asked.forEach((text, row) => write(text, MARGIN, MARGIN + 66 + row * 32, 24, "ink", 700));
  box(MARGIN, top, width - 2 * MARGIN, 1, "hairline");
  columns.forEach((shown, place) => {
    const x = MARGIN + place * (column + GAP);
    if (place) box(x - GAP / 2, top, 1, figures + 130 - top, "hairline");
    box(x, top - 1, column, 3, shown.stage);
    const name = write(shown.name, x, top + 38, 24, `${shown.stage}-words`, 700);
    write(shown.after, x + name + 10, top + 38, 15, "quiet");
    answers[place].forEach((text, row) => {
      const cut = row === MOST_LINES.answer;
      write(text, x, top + 76 + row * LINE, 18, cut ? "quiet" : "ink");
    });
    box(x, figures, column, 1, "hairline");
    write(shown.ended, x, figures + 30, 16, "ink", 600);
    write(`${shown.tokens} token${shown.tokens === 1 ? "" : "s"}`, x + column, figures + 30, 16, "quiet", 400, "right");
    write("Reward", x, figures + 70, 16, "quiet");
    write(shown.score, x + column, figures + 72, 26, `${shown.stage}-words`, 700, "right");
    const at = (value) => x + (column * (Math.min(Math.max(value, scale[0]), scale[1]) - scale[0])) / (scale[1] - scale[0]);
    box(x, figures + 86, column, 10, "faint");
    if (shown.reward !== null) {
      box(Math.min(at(0), at(shown.reward)), figures + 86, Math.abs(at(shown.reward) - at(0)), 10, shown.stage);
    }
    box(at(0), figures + 82, 1, 18, "quiet");
    write(signed(scale[0]), x, figures + 116, 13, "quiet");
    write("0", at(0), figures + 116, 13, "quiet", 400, "center");
    write(signed(scale[1]), x + column, figures + 116, 13, "quiet", 400, "right");
  });
  box(MARGIN, figures + 130, width - 2 * MARGIN, 1, "hairline");
  write("Small research models. Their answers are not advice, and often wrong.", MARGIN, height - 24, 14, "quiet");
  return canvas;
}

function signed(value) {
  return value < 0 ? `\u2212${-value}` : `+${value}`;
}

// The lines of a text at the pen's font, with one more that says so if there are too many.
function lines(pen, text, width, most) {
  const all = text.trim().split("\n").flatMap((paragraph) => wrapped(pen, paragraph, width));
  const more = all.length - most;
  return more > 0 ? [...all.slice(0, most), `\u2026 and ${more} more line${more === 1 ? "" : "s"}`] : all;
}

function wrapped(pen, paragraph, width) {
  const fits = (text) => pen.measureText(text).width <= width;
  const done = [];
  let line = "";
  for (const word of paragraph.replaceAll("\t", "  ").split(/(?<= )/)) {
    if (fits((line + word).trimEnd())) {
      line += word;
      continue;
    }
    if (line) done.push(line);
    line = "";
    // A word longer than a line, or a language without spaces, may break after any character.
    for (const { segment } of fits(word.trimEnd()) ? [{ segment: word }] : new Intl.Segmenter().segment(word)) {
      if (line && !fits(line + segment)) {
        done.push(line);
        line = "";
      }
      line += segment;
    }
  }
  return [...done, line];
}

for (const button of buttons) {
  button.addEventListener("click", () => acts[button.dataset.act](button));
}
watch("value", update);
update();
