// The page: a photograph in, a life out. What is shown, and what changes it.

import { Camera } from "./camera.js";
import { download } from "./downloads.js";
import { Faces } from "./faces.js";
import { asJpeg, Intake } from "./intake.js";
import { Key } from "./key.js";
import { Life, STEPS } from "./life.js";
import { Problem } from "./problem.js";
import { Service } from "./service.js";
import { parts } from "./stream.js";
import { Strip } from "./strip.js";
import { currentLanguage, fill, languages, say, sayOf, sayProblem, speak } from "./words.js";

const MULTIPART = "multipart/mixed";
const PHOTO_PX = 1200;
// The face is no longer there as it is needed, but the photograph is still here.
const SEND_AGAIN = ["unknown_face", "face_cut_for_another_model"];
// The service does not take the file as it is; the browser may make it one that it takes. Where the
// service hangs up on a large file, that reads as if it could not be reached.
const MAKE_SMALLER = ["body_too_large", "image_too_large", "unsupported_image", "unreachable"];

const element = (id) => document.getElementById(id);

const models = new Map();
// What the controls say: names of model, group and view.
let choice = { model: "", group: "", view: "face" };
// What is on the page: its choice; photo and faceIndex, as sent; face (the id), whether its photo is
// kept, and answer (GET /faces); and its life.
let shown = null;
let work = new AbortController();
let status = null;
let problem = null;

const key = new Key({
  dialog: element("key"),
  form: element("key-form"),
  input: element("key-value"),
  reason: element("key-reason"),
});
const service = new Service({ key, onBusy: () => tell("busy") });
const strip = new Strip({
  root: element("strip"),
  list: element("anchors"),
  slider: element("age"),
  play: element("play"),
  onPlace: render,
});
const faces = new Faces({
  root: element("sent"),
  image: element("sent-photo"),
  boxes: element("boxes"),
  which: element("which"),
  list: element("faces"),
  onFace: (faceIndex) => show({ ...shown, faceIndex, face: null }),
});
const camera = new Camera({
  dialog: element("camera"),
  finder: element("finder"),
  take: element("take"),
  cancel: element("cancel"),
  onPhoto: take,
  onProblem: complain,
});

function take(photo) {
  show({ ...choice, photo, faceIndex: null, face: null });
}

// Shows what is wanted, in place of what is shown; where that fails, the old stays, with a reason.
async function show(wanted) {
  work.abort();
  const mine = new AbortController();
  work = mine;
  strip.stop();
  complain(null);
  try {
    await develop(wanted, mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    complain(error);
    tell(null);
    wait(null);
    if (shown) choose(shown);
    else clear();
  }
  if (!shown) return;
  try {
    await fetchYears(shown, mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    element("progress").hidden = true;
    tell(null);
    complain(error);
  }
}

// The anchors, one by one as they come. The first replaces what was shown.
async function develop(wanted, signal) {
  const { anchors, continuous } = models.get(wanted.model);
  wait(wanted);
  tell("finding");
  const response = await answered(wanted, signal);
  const life = new Life(anchors.map((anchor) => anchor.centre_years), continuous);
  const fresh = { ...wanted, face: response.headers.get("X-Face-Id"), life };
  let done = 0;
  for await (const part of parts(response)) {
    const url = life.put(done * STEPS, part);
    if (!done) replace(fresh);
    strip.develop(done, url);
    done += 1;
    tell("developing", { done, count: anchors.length });
    render();
  }
  element("downloads").disabled = false;
  if (fresh.answer?.face_id !== fresh.face) {
    fresh.answer = await service.face(fresh.face, fresh.model, signal);
    await faces.mark(fresh.answer);
    sayKept();
  }
}

// All anchors of a face that is known, or else of the photograph.
async function answered(wanted, signal) {
  const asked = { ...asking(wanted), target: "all", format: "webp" };
  // The photograph is kept by the service only while the face is looked at in it.
  const keeping = wanted.view === "photo";
  if (wanted.face && wanted.kept === keeping) {
    try {
      return await service.age({ ...asked, face: wanted.face }, MULTIPART, signal);
    } catch (error) {
      if (!SEND_AGAIN.includes(error.code)) throw error;
    }
  }
  wanted.kept = keeping;
  asked.face_index = wanted.faceIndex;
  asked.keep_photo = keeping;
  try {
    return await service.age({ ...asked, image: wanted.photo }, MULTIPART, signal);
  } catch (error) {
    const smaller = MAKE_SMALLER.includes(error.code) ? await asJpeg(wanted.photo) : null;
    if (!smaller) throw error;
    wanted.photo = smaller;
    return service.age({ ...asked, image: smaller }, MULTIPART, signal);
  }
}

function asking({ model, group, view }) {
  return view === "photo" ? { model, group, view, longest_px: PHOTO_PX } : { model, group, view };
}

function replace(fresh) {
  const old = shown;
  shown = fresh;
  if (old) {
    old.life.close();
    if (old.face !== fresh.face) service.forget(old.face).catch(() => null);
  }
  if (old?.photo !== fresh.photo) faces.show(fresh.photo);
  wait(null);
  choose(fresh);
  lay(fresh);
  const { name, anchors, continuous } = models.get(fresh.model);
  element("page").classList.remove("empty");
  element("print").classList.toggle("photo", fresh.view === "photo");
  for (const id of ["scrub", "play", "films"]) element(id).hidden = !continuous;
  element("no-slider").hidden = continuous;
  element("no-slider").textContent = say("no_slider", { model: name, count: anchors.length });
  element("forget").hidden = false;
  strip.go(Math.min(strip.place, fresh.life.last));
  sayChoose();
}

async function fetchYears({ life, face, ...wanted }, signal) {
  if (!life.continuous) {
    tell("anchors_ready", { count: life.centres.length });
    return;
  }
  const progress = element("progress");
  progress.hidden = false;
  progress.value = life.share;
  const asked = { ...asking(wanted), face, format: "webp" };
  const fetchPictures = (age) => service.age({ ...asked, age }, MULTIPART, signal);
  const onPicture = (place, url) => {
    // An anchor only where its own answer broke off.
    if (place % STEPS === 0) strip.develop(place / STEPS, url);
    progress.value = life.share;
    render();
  };
  tell("between");
  await life.fetchAhead(() => strip.place, fetchPictures, onPicture);
  progress.hidden = true;
  tell("ready");
}

// While a picture is wanted: the photograph that was sent, where there is nothing else to see.
function wait(wanted) {
  element("page").classList.toggle("busy", Boolean(wanted));
  element("strip").setAttribute("aria-busy", String(Boolean(wanted)));
  if (!wanted || shown) return;
  const picture = element("picture");
  const url = URL.createObjectURL(wanted.photo);
  picture.src = url;
  picture.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  picture.alt = say("photograph_alt");
  picture.hidden = false;
  element("drop").hidden = true;
}

function render() {
  const text = element("age");
  const years = shownYears();
  element("years").textContent = years.number;
  element("unit").textContent = years.unit;
  text.setAttribute("aria-valuetext", years.words);
  const nearest = shown?.life.nearest(strip.place);
  if (!nearest) return;
  const picture = element("picture");
  if (picture.getAttribute("src") !== nearest.url) picture.src = nearest.url;
  picture.alt = say("picture_alt", { age: years.words });
  picture.hidden = false;
  element("drop").hidden = true;
}

// The age at the slider's place: its words, and number and unit apart.
function shownYears() {
  if (!shown) return { number: "", unit: "", words: "" };
  const years = shown.life.continuous
    ? Math.round(shown.life.years(strip.place))
    : anchorAt(strip.place).name.replace("-", "–");
  return {
    number: years,
    unit: say("years_unit", { years }),
    words: say("years", { years }),
  };
}

function anchorAt(place) {
  return models.get(shown.model).anchors[Math.round(place / STEPS)];
}

async function keep(kind, button) {
  const { place } = strip;
  const target =
    place % STEPS === 0
      ? { anchor: anchorAt(place).name }
      : { age: Number(shown.life.years(place).toFixed(2)) };
  button.setAttribute("aria-busy", "true");
  complain(null);
  tell("making");
  try {
    tell("made", { name: await download(service, kind, { ...shown, target }) });
  } catch (error) {
    tell(null);
    complain(error);
  }
  button.removeAttribute("aria-busy");
}

async function forget() {
  work.abort();
  complain(null);
  const { face } = shown;
  try {
    await service.forget(face);
  } catch (error) {
    if (error.code !== "unknown_face") {
      complain(error);
      return;
    }
  }
  shown.life.close();
  shown = null;
  clear();
  tell("forgotten");
  element("choose").focus();
}

// The page as it was before the first photograph.
function clear() {
  element("page").classList.add("empty");
  element("print").classList.remove("photo");
  element("picture").hidden = true;
  element("picture").removeAttribute("src");
  element("drop").hidden = false;
  element("downloads").disabled = true;
  for (const id of ["scrub", "play", "no-slider", "forget", "progress"]) element(id).hidden = true;
  faces.hide();
  choose(choice);
  lay(choice);
  strip.go(0);
  sayKept();
  sayChoose();
}

// Puts the controls on a choice.
function choose({ model, group, view }) {
  const { groups, default_group: usual, resolution } = models.get(model);
  choice = { model, group: groups.includes(group) ? group : usual, view };
  element("model").value = model;
  const usualFirst = [...groups].sort((one, other) => (other === usual) - (one === usual));
  radios(element("groups"), "group", usualFirst.map((name) => [name, sayOf("groups", name)]));
  radios(element("views"), "view", [
    ["face", say("view_face")],
    ["photo", say("view_photo")],
  ]);
  element("groups").hidden = groups.length < 2;
  const side = Math.min(512, Math.max(256, 5 * resolution));
  element("print").style.setProperty("--picture", `${side}px`);
  sayModel();
}

function lay({ model }) {
  strip.lay(models.get(model).anchors.map((anchor) => anchor.name));
}

// A switch of radio buttons for [value, words], in place of another one; the choice is kept.
function radios(fieldset, name, options) {
  const box = fieldset.querySelector("div");
  const focused = box.contains(document.activeElement) ? document.activeElement.value : null;
  box.replaceChildren(
    ...options.map(([value, words]) => {
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name, value, checked: value === choice[name] });
      const label = document.createElement("label");
      label.append(input, words);
      return label;
    }),
  );
  if (focused) box.querySelector(`[value="${CSS.escape(focused)}"]`)?.focus();
}

function change(part) {
  choice = { ...choice, ...part };
  const { groups, default_group: usual } = models.get(choice.model);
  if (!groups.includes(choice.group)) choice.group = usual;
  if (shown) {
    show({ ...shown, ...choice });
    return;
  }
  choose(choice);
  lay(choice);
}

// Says what goes on, in the words of `key`; nothing for null.
function tell(key, values = {}) {
  status = key ? { key, values } : null;
  element("status").textContent = status ? say(key, values) : "";
}

function complain(error) {
  if (error && !(error instanceof Problem)) console.error(error);
  problem = error && (error instanceof Problem ? error : new Problem("unexpected", error.message));
  element("problem").textContent = problem ? sayProblem(problem) : "";
}

function sayChoose() {
  element("choose").textContent = say(shown ? "choose_another" : "choose");
}

function sayKept() {
  const expires = shown?.answer?.expires_at;
  const format = new Intl.DateTimeFormat(currentLanguage(), { timeStyle: "short" });
  const kept = expires ? say("kept_until", { time: format.format(new Date(expires)) }) : "";
  const notes = (shown?.answer?.notes ?? []).map((note) => sayOf("notes", note));
  element("kept").textContent = [kept, ...notes].join(" ");
}

function sayModel() {
  const model = models.get(choice.model);
  element("model-note").textContent = say("model_note", model);
  element("licence").textContent = model.licence;
}

// All words again, in another language.
function sayAll() {
  fill(document);
  for (const part of [strip, faces]) part.say();
  sayChoose();
  sayKept();
  if (models.size) {
    sayModel();
    for (const input of document.querySelectorAll(".switch input")) {
      const words = input.name === "group" ? sayOf("groups", input.value) : say(`view_${input.value}`);
      input.nextSibling.textContent = words;
    }
  }
  if (shown) {
    const { name, anchors } = models.get(shown.model);
    element("no-slider").textContent = say("no_slider", { model: name, count: anchors.length });
  }
  tell(status?.key, status?.values);
  complain(problem);
  render();
}

async function start() {
  const language = element("language");
  language.append(...languages().map(({ name, label }) => new Option(label, name)));
  language.value = currentLanguage();
  language.addEventListener("change", () => {
    speak(language.value);
    sayAll();
  });
  sayAll();
  tell("starting");
  const { models: served, default: usual } = await service.models();
  for (const model of served) {
    models.set(model.name, { ...model, ...(await service.anchors(model.name)) });
  }
  element("model").append(...served.map(({ name }) => new Option(name, name)));
  element("models").hidden = served.length < 2;
  choice = { model: usual, group: models.get(usual).default_group, view: "face" };
  clear();
  tell(null);
  listen();
}

function listen() {
  new Intake({
    document,
    input: element("photo"),
    capture: element("capture"),
    target: element("print"),
    onPhoto: take,
    onNothing: () => complain(new Problem("no_picture")),
  });
  element("choose").addEventListener("click", () => element("photo").click());
  const touch = matchMedia("(pointer: coarse)").matches;
  element("use-camera").hidden = !Camera.exists && !touch;
  element("use-camera").addEventListener("click", () => {
    if (Camera.exists) camera.open();
    else element("capture").click();
  });
  element("forget").addEventListener("click", forget);
  element("groups").addEventListener("change", (event) => change({ group: event.target.value }));
  element("views").addEventListener("change", (event) => change({ view: event.target.value }));
  element("model").addEventListener("change", (event) => change({ model: event.target.value }));
  element("downloads").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && !button.hasAttribute("aria-busy")) keep(button.dataset.kind, button);
  });
}

start().catch((error) => {
  tell(null);
  complain(error);
});
