// The page: a photo in, the anchors and a slider over the years out. Frames are fetched ahead.

const FRAMES = 48;
const element = (id) => document.getElementById(id);
const status = element("status");
let face = null;
let frames = [];
let round = 0; // Answers of an earlier photo or group are dropped.

async function call(path, options = {}) {
  const response = await fetch(path, options);
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail ?? `The service answered ${response.status}.`);
  }
  return response.status === 204 ? null : response.json();
}

function say(text, failed = false) {
  status.textContent = text;
  status.classList.toggle("failed", failed);
}

const source = (picture) => `data:${picture.media_type};base64,${picture.image}`;

function showAnchors(pictures) {
  element("anchors").replaceChildren(...pictures.map((picture) => {
    const image = new Image();
    image.src = source(picture);
    image.alt = `Synthetic picture at ${picture.target} years`;
    const caption = document.createElement("figcaption");
    caption.textContent = picture.target;
    const figure = document.createElement("figure");
    figure.append(image, caption);
    const item = document.createElement("li");
    item.append(figure);
    return item;
  }));
}

function showFrame() {
  const frame = frames[element("age").valueAsNumber];
  if (!frame) return;
  element("frame").src = source(frame);
  element("years").textContent = `${Math.round(frame.effective_age_years)} years`;
  element("age").setAttribute("aria-valuetext", element("years").textContent);
}

async function age(image) {
  const mine = ++round;
  say("Finding the face…");
  element("age").disabled = true;
  try {
    const form = new FormData();
    if (image) form.set("image", image); else form.set("face", face);
    form.set("target", "all");
    form.set("format", "webp");
    const group = element("group").value;
    if (group) form.set("group", group);
    const answer = await call("age", { method: "POST", body: form });
    if (mine !== round) return;
    face = answer.face_id;
    showAnchors(answer.pictures);
    element("result").hidden = false;
    say("Making the years between…");
    const query = new URLSearchParams({ face, frames: FRAMES, group: answer.group, format: "webp" });
    const headers = { Accept: "application/json" };
    const life = await call(`interpolate?${query}`, { headers });
    if (mine !== round) return;
    frames = life.pictures;
    const slider = element("age");
    slider.max = frames.length - 1;
    slider.disabled = false;
    showFrame();
    say(answer.notes.join(" "));
  } catch (error) {
    if (mine === round) say(error.message, true);
  }
}

async function forget() {
  if (!face) return;
  round += 1;
  await call(`faces/${face}`, { method: "DELETE" }).catch(() => null);
  face = null;
  frames = [];
  element("result").hidden = true;
  element("anchors").replaceChildren();
  element("frame").removeAttribute("src");
  element("photo").value = "";
  say("The face was deleted.");
}

async function start() {
  const { groups, default_group: byDefault } = await call("anchors");
  element("group").replaceChildren(...groups.map((group) => new Option(group, group)));
  element("group").value = byDefault;
  element("group").addEventListener("change", () => age(null));
  element("forget").addEventListener("click", forget);
  element("age").addEventListener("input", showFrame);
  element("photo").addEventListener("change", (event) => {
    if (event.target.files.length) age(event.target.files[0]);
  });
  const drop = element("drop");
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const [image] = event.dataTransfer.files;
    if (image) age(image);
  });
}

start().catch((error) => say(error.message, true));
