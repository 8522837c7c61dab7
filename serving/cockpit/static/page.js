// The server's page. It asks the routes that any client may ask and draws what they answer; nothing is loaded from
// elsewhere, and every text of an answer is set as text.
"use strict";

const byId = (id) => document.getElementById(id);
const TOKEN = "mlplatform-token";
const REFRESH_MS = 15000;
const HEIGHT = 260, RIGHT = 12, TOP = 10, BOTTOM = 26;
const HOUR = 3600000, DAY = 24 * HOUR;
const STEPS = [HOUR / 4, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 3 * DAY, 7 * DAY, 14 * DAY];
// Months differ in length, so that ticks further apart are counted in them.
const MONTH = 30.5 * DAY, MONTHS = [1, 3, 6, 12, 24, 60, 120, 240];
const LETTER_WIDTH = 7;
const LABEL_WIDTH = 130, DAY_LABEL_WIDTH = 90;

class Refusal extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(path, body) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body: body && JSON.stringify(body) });
  if (response.ok) return response.headers.get("content-type").includes("json") ? response.json() : response.text();
  let message = `the server answered ${response.status}`;
  try { message = (await response.json()).detail || message; } catch { /* what is no JSON has no more to say */ }
  throw new Refusal(response.status, message);
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Five digits, without a power of ten where people would not write one.
function number(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  if (size >= 1e4 && size < 1e7) return String(Math.round(value));
  if (size >= 1e7 || (size > 0 && size < 1e-4)) return Number(value).toExponential(4).replace(/\.?0+e/, "e");
  return String(Number(Number(value).toPrecision(5)));
}

const moment = (text) => text ? new Date(text).toISOString().slice(0, 16).replace("T", " ") : "-";

// Prometheus' text to the median and the 99th percentile of a route, from its histogram.
function latency(metrics, route) {
  const buckets = [];
  for (const line of metrics.split("\n")) {
    if (!line.startsWith("mlplatform_http_request_seconds_bucket{") || !line.includes(`route="${route}"`)) continue;
    const bound = /le="([^"]+)"/.exec(line)[1];
    buckets.push([bound === "+Inf" ? Infinity : Number(bound), Number(line.slice(line.lastIndexOf(" ")))]);
  }
  if (!buckets.length || buckets[buckets.length - 1][1] === 0) return "-";
  const all = buckets[buckets.length - 1][1];
  const below = (share) => buckets.find(([, count]) => count >= share * all)[0];
  const shown = (seconds) => seconds === Infinity ? "more" : `${Math.round(seconds * 1000)} ms`;
  return `${shown(below(0.5))}, 99 %: ${shown(below(0.99))}`;
}

function driftText(drift) {
  if (!drift) return "no report";
  if (drift.broken.length) return `data broken: ${drift.broken.join(", ")}`;
  if (drift.drifted.length) return `drift: ${drift.drifted.map((cause) => cause.replace("feature:", "")).join(", ")}`;
  return drift.suspected.length ? `suspected: ${drift.suspected.join(", ")}` : "steady";
}

// What is in production, or why nothing is, and below it what else the registry points at.
function productionCell(model) {
  const cell = element("td", undefined, model.version ? {} : { class: "wide" }), lines = element("div");
  const others = Object.entries(model.aliases || {}).filter(([alias]) => alias !== "production");
  const notes = model.aliases ? others.map(([alias, version]) => `${alias}: ${version}`) : ["registry away"];
  lines.append(
    element("div", model.version ? `version ${model.version}` : model.reason || "nothing"),
    ...notes.map((text) => element("div", text, { class: "note" })),
  );
  cell.append(lines);
  return cell;
}

function challengerText(model) {
  const arm = model.challenger;
  if (!arm) return "-";
  const how = arm.mode === "shadow" ? "in shadow" : `${Math.round((arm.share || 0) * 100)} %`;
  return arm.version ? `${arm.alias}: version ${arm.version}, ${how}` : `${arm.alias}: ${arm.reason || "none"}`;
}

// How a version did on what came true lately; undefined where nothing did.
const errorsOf = (live, version) => live ? live.versions.find((each) => each.version === version) : undefined;

// The live error beside that of the reference set, from what came true, else from the newest drift report.
function errorText(found, drift) {
  const reference = drift && drift.reference_error !== null ? ` (reference ${number(drift.reference_error)})` : "";
  if (!found) return drift && drift.live_error !== null ? `${number(drift.live_error)}${reference}` : "-";
  const naive = found.naive_error === null ? "" : `, naive ${number(found.naive_error)}`;
  return `${number(found.error)}${reference}${naive}`;
}

const percent = (share) => `${number(Math.round(share * 1000) / 10)} %`;

function coverageText(found) {
  if (!found || found.covered === null) return "-";
  return `${percent(found.covered)}, meant ${percent(found.coverage)}; ${found.count} values`;
}

// What is not there yet, or cannot be read, leaves its place empty and nothing else.
const orNull = (asked) => asked.catch(() => null);

let models = [];
// Whether ids of the chosen model are text, so that what is typed is never taken for a number.
let textIds = false;

async function showModels() {
  const [described, metrics] = await Promise.all([ask("models"), ask("metrics").catch(() => "")]);
  models = described.models;
  const parts = (name) => Promise.all(models.map((model) => orNull(ask(`models/${model.name}/${name}`))));
  const [drifts, lives] = await Promise.all([parts("drift"), parts("live")]);
  const columnNames = [...byId("columns").cells].map((cell) => cell.textContent);
  byId("models").replaceChildren(...models.map((model, place) => {
    const drift = drifts[place], live = errorsOf(lives[place], model.version);
    const rival = model.challenger && model.challenger.version ? errorsOf(lives[place], model.challenger.version) : undefined;
    const challenger = challengerText(model) + (rival ? `; live error ${number(rival.error)}` : "");
    const row = element("tr", undefined, { role: "row" });
    row.append(
      element("th", model.name, { scope: "row", role: "rowheader" }),
      productionCell(model),
      element("td", moment(model.promoted_at), { class: "time" }), element("td", model.family || "-"), element("td", challenger),
      element("td", driftText(drift)), element("td", errorText(live, drift)), element("td", coverageText(live)),
      element("td", latency(metrics, model.name === described.default ? "/predict/feast/batch" : "/models/{name}/predict/feast/batch")),
    );
    // On a phone a row is a card, and its cells bear the names of their columns.
    [...row.cells].slice(1).forEach((cell, column) => {
      cell.setAttribute("role", "cell");
      cell.dataset.label = columnNames[column + 1];
    });
    return row;
  }));
  const ready = models.filter((model) => model.version).length;
  byId("state").textContent = `${ready} of ${models.length} models answer; looked at ${new Date().toTimeString().slice(0, 8)}`;
  byId("token-part").hidden = true;
  const chosen = byId("model").value || described.default;
  byId("model").replaceChildren(...models.map((model) => element("option", model.name, { value: model.name })));
  byId("model").value = chosen;
}

async function offerEntities() {
  const name = byId("model").value;
  const { entities, more } = await ask(`models/${name}/entities`);
  textIds = entities.every((entity) => typeof entity === "string");
  byId("entities").replaceChildren(...entities.map((entity) => element("option", undefined, { value: entity })));
  byId("entity").title = more ? `any id; ${more} more than the list has` : "";
  byId("entity").value = entities.length ? entities[0] : "";
}

function entityAsked() {
  const text = byId("entity").value.trim();
  return !textIds && /^-?\d{1,15}$/.test(text) ? Number(text) : text;
}

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Two at least, with as many decimals as tell them apart.
function ticks(low, high) {
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), isPlain = Math.max(-low, high) < 1e7 && decimals <= 6;
  const found = [], least = Math.ceil(low / step);
  for (let place = least; place * step <= high; place += 1) {
    const value = place * step;
    found.push({ value, label: isPlain ? value.toFixed(decimals) : number(value) });
  }
  return found;
}

function timeTicks(first, last, width) {
  const room = (labelWidth) => Math.max(2, Math.floor(width / labelWidth)), most = room(LABEL_WIDTH), found = [];
  const step = STEPS.find((length) => (last - first) / length <= (length < DAY ? most : room(DAY_LABEL_WIDTH)));
  if (step) {
    for (let time = Math.ceil(first / step) * step; time <= last; time += step) found.push({ time, label: moment(time).replace(" 00:00", "") });
    return found;
  }
  const months = MONTHS.find((count) => (last - first) / (count * MONTH) <= most) || MONTHS[MONTHS.length - 1];
  const begin = new Date(first);
  for (let month = Math.floor((begin.getUTCFullYear() * 12 + begin.getUTCMonth()) / months) * months; ; month += months) {
    const time = Date.UTC(Math.floor(month / 12), month % 12, 1);
    if (time > last) return found;
    if (time >= first) found.push({ time, label: moment(time).slice(0, months % 12 ? 7 : 4) });
  }
}

// Lines break where nothing was measured.
function path(points, x, y) {
  let drawn = "", broken = true;
  for (const [time, value] of points) {
    if (value === null) { broken = true; continue; }
    drawn += `${broken ? "M" : "L"}${x(time).toFixed(1)},${y(value).toFixed(1)}`;
    broken = false;
  }
  return drawn;
}

function draw(target, past, future, bands, before = [], told = []) {
  // As wide as there is room, so that letters keep their size on a phone.
  const WIDTH = Math.max(320, byId("answer").clientWidth);
  const values = [...past, ...future, ...before, ...[...bands, ...told].flatMap((band) => [...band.lower, ...band.upper])].map(([, value]) => value).filter((value) => value !== null);
  const times = [...past, ...future, ...before].map(([time]) => time);
  let low = Math.min(...values), high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  low -= room; high += room;
  const first = Math.min(...times), last = Math.max(...times);
  const marks = ticks(low, high), left = Math.max(45, 12 + LETTER_WIDTH * Math.max(...marks.map(({ label }) => label.length)));
  const x = (time) => left + (time - first) / (last - first || 1) * (WIDTH - left - RIGHT);
  const y = (value) => TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${target}: recent past and forecast; the numbers are in the table below` });
  for (const { value, label } of marks) {
    picture.append(svg("line", { class: "grid", x1: left, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    picture.append(svg("text", { class: "level", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, label));
  }
  for (const { time, label } of timeTicks(first, last, WIDTH - left - RIGHT)) {
    const half = LETTER_WIDTH * label.length / 2;
    const middle = Math.min(Math.max(x(time), half), WIDTH - half);
    picture.append(svg("text", { class: "time", x: middle, y: HEIGHT - 6, "text-anchor": "middle" }, label));
  }
  // Where a narrow band lies on a wide one, both are seen.
  for (const [name, drawn] of [["band told", told], ["band", bands]]) {
    for (const band of drawn) {
      const area = `${path(band.upper, x, y)}L${path([...band.lower].reverse(), x, y).slice(1)}Z`;
      picture.append(svg("path", { class: name, d: area }));
    }
  }
  if (before.length) picture.append(svg("path", { class: "before", d: path(before, x, y) }));
  if (past.length && future.length) {
    const origin = x(past[past.length - 1][0]);
    picture.append(svg("line", { class: "origin", x1: origin, x2: origin, y1: TOP, y2: HEIGHT - BOTTOM }));
  }
  const joint = past.slice(-1).filter(([, value]) => value !== null);
  picture.append(svg("path", { class: "past", d: path(past, x, y) }), svg("path", { class: "forecast", d: path([...joint, ...future], x, y) }));
  return picture;
}

function tableOf(columns, rows, title = "The numbers") {
  const details = element("details"), table = element("table"), head = element("tr"), body = element("tbody");
  head.append(...columns.map((name) => element("th", name, { scope: "col" })));
  const top = element("thead");
  top.append(head);
  for (const row of rows) {
    const line = element("tr");
    line.append(...row.map((value) => element("td", typeof value === "number" ? number(value) : value)));
    body.append(line);
  }
  table.append(top, body);
  const place = element("div", undefined, { class: "scroll", role: "region", "aria-label": title, tabindex: "0" });
  place.append(table);
  details.append(element("summary", title), place);
  return details;
}

// All intervals of an answer, the narrowest first; one alone has no list of its own.
const intervalsOf = (answer) => answer.intervals || (answer.interval ? [answer.interval] : []);
const sideName = (side, interval, all) => all.length > 1 ? `${side}, ${covers(interval)}` : side;
const covers = (interval) => `${number(interval.coverage * 100)} %`;

const joined = (times, values) => times.map((time, place) => [Date.parse(time), values[place]]);

// What is drawn, in words and colours; the picture's label leads to the tables.
function legend(hasPast, hasBefore, asOf) {
  const line = element("p", undefined, { class: "note" });
  const keys = [[hasPast, "measured", "key"], [true, "forecast, with its interval", "key of-forecast"],
    [hasBefore, asOf ? `what this version says, asked as of ${moment(asOf)}` : "what was forecast before", "key of-before"]];
  line.append(...keys.filter(([isThere]) => isThere).map(([, text, name]) => element("span", text, { class: name })));
  return line;
}

// Steps of what was forecast, cut to those that the picture of the past begins with.
function followedPast(series, first) {
  const points = (name) => joined(series.timestamps, series[name]).filter(([time]) => time >= first);
  const hasInterval = series.lower.some((value) => value !== null);
  return { before: points("value"), told: hasInterval ? unbroken(points("lower"), points("upper")) : [] };
}

// Bands without holes, one for each stretch that has both bounds.
function unbroken(lower, upper) {
  const bands = [];
  let open = null;
  lower.forEach(([time, low], place) => {
    const high = upper[place][1];
    if (low === null || high === null) { open = null; return; }
    if (!open) { open = { lower: [], upper: [] }; bands.push(open); }
    open.lower.push([time, low]);
    open.upper.push([time, high]);
  });
  return bands;
}

// An age in the largest unit that leaves it 2 or more.
function ageText(seconds) {
  const [name, length] = [["years", 31556952], ["days", 86400], ["hours", 3600], ["minutes", 60]].find(([, size]) => seconds >= 2 * size) || ["seconds", 1];
  return `${Math.floor(seconds / length)} ${name}`;
}

function showForecast(answer, recent, followed) {
  const forecast = answer.forecasts[0], parts = [], said = [];
  for (const [target, values] of Object.entries(forecast.values)) {
    const intervals = intervalsOf(forecast);
    const bands = intervals.map((interval) => ({
      lower: joined(forecast.timestamps, interval.lower[target]), upper: joined(forecast.timestamps, interval.upper[target]),
    }));
    const past = recent ? joined(recent.timestamps, recent.values[target]) : [];
    const figure = element("figure");
    const covered = intervals.length ? `, ${intervals.map(covers).join(", ")} interval${intervals.length > 1 ? "s" : ""}` : "";
    const series = followed && past.length ? followed.targets[target] : undefined;
    const { before, told } = series ? followedPast(series, past[0][0]) : { before: [], told: [] };
    const age = forecast.age_seconds === null ? "" : `, ${ageText(forecast.age_seconds)} old`;
    const marks = [forecast.stale ? "stale" : "", forecast.fallback ? "the fallback, not the model" : ""].filter(Boolean);
    figure.append(
      draw(target, past, joined(forecast.timestamps, values), bands, before, told),
      legend(past.length, before.length, followed && followed.asOf),
      element("figcaption", `${target} of ${forecast.entity}: ${answer.model} version ${answer.version}${covered}; newest row ${moment(forecast.event_time)}${age}${marks.length ? `; ${marks.join(", ")}` : ""}`),
    );
    const columns = ["time", target, ...intervals.flatMap((interval) => ["lower", "upper"].map((side) => sideName(side, interval, intervals)))];
    const rows = forecast.timestamps.map((time, place) => [
      moment(time), values[place], ...intervals.flatMap((interval) => [interval.lower[target][place], interval.upper[target][place]]),
    ]);
    parts.push(figure, tableOf(columns, rows, `The numbers of ${target}`));
    if (series) {
      const told = series.timestamps.map((time, place) => [
        moment(time), series.truth[place], series.value[place], series.lower[place], series.upper[place],
      ]);
      parts.push(tableOf(["time", "measured", followed.asOf ? "forecast" : "was forecast", "lower", "upper"], told.reverse(), followed.asOf ? `The newest steps of ${target}, as this version forecasts them` : `What was forecast of ${target} before, and what came true`));
    }
    const last = values.length - 1, first = intervals[0];
    const between = first ? `, between ${number(first.lower[target][0])} and ${number(first.upper[target][0])}` : "";
    said.push(`${target} of ${forecast.entity}: ${number(values[0])} at ${moment(forecast.timestamps[0])}${between}; ${number(values[last])} at ${moment(forecast.timestamps[last])}`);
  }
  byId("said").textContent = said.join(". ");
  byId("answer").replaceChildren(...parts);
}

// Where nothing that was forecast has come true yet: what the model says of the newest steps, asked as of before them.
async function askedBefore(name, entity, recent, answer) {
  const [forecast] = answer.forecasts, steps = forecast.timestamps.length;
  if (!recent || recent.timestamps.length <= steps) return null;
  const time_point = recent.timestamps[recent.timestamps.length - 1 - steps];
  const earlier = await orNull(ask(`models/${name}/predict/feast/batch`, { entities: [entity], time_point, on_error: "fail" }));
  if (!earlier || !earlier.forecasts) return null;
  const [told] = earlier.forecasts, [interval] = intervalsOf(told), nothing = told.timestamps.map(() => null);
  const targets = {};
  for (const [target, value] of Object.entries(told.values)) {
    const measured = new Map(recent.timestamps.map((time, place) => [time, recent.values[target][place]]));
    targets[target] = {
      timestamps: told.timestamps, value, truth: told.timestamps.map((time) => measured.has(time) ? measured.get(time) : null),
      lower: interval ? interval.lower[target] : nothing, upper: interval ? interval.upper[target] : nothing,
    };
  }
  return { targets, asOf: time_point };
}

function showPrediction(answer) {
  const prediction = answer.predictions[0];
  const rows = prediction.probabilities ? Object.entries(prediction.probabilities) : [["value", prediction.value]];
  const intervals = intervalsOf(prediction);
  for (const interval of intervals) {
    for (const side of ["lower", "upper"]) rows.push([sideName(side, interval, intervals), interval[side]]);
  }
  const shown = tableOf([prediction.label ? "class" : "", prediction.label ? "probability" : ""], rows);
  shown.open = true;
  const says = prediction.label || number(prediction.value);
  byId("said").textContent = "";
  byId("answer").replaceChildren(element("p", `${prediction.entity}: ${says}, by ${answer.model} version ${answer.version}`), shown);
}

async function askForecast(event) {
  event.preventDefault();
  byId("problem").textContent = "";
  byId("said").textContent = "";
  const name = byId("model").value, entity = entityAsked();
  try {
    const answer = await ask(`models/${name}/predict/feast/batch`, { entities: [entity], on_error: "fail" });
    if (answer.forecasts) {
      const query = new URLSearchParams({ entity: JSON.stringify(entity) });
      const [recent, followed] = await Promise.all(["recent", "followed"].map((what) => orNull(ask(`models/${name}/${what}?${query}`))));
      showForecast(answer, recent, followed || await askedBefore(name, entity, recent, answer));
    } else {
      showPrediction(answer);
    }
  } catch (error) { tell(error); }
}

function tell(error) {
  if (error.status === 401) {
    byId("token-part").hidden = false;
    byId("state").textContent = "The server asks for a token";
    return;
  }
  byId("problem").textContent = error.message;
}

async function refresh() {
  try { await showModels(); } catch (error) {
    if (error.status === 401) tell(error);
    else byId("state").textContent = `The server does not answer: ${error.message}`;
  }
}

async function begin() {
  await refresh();
  if (byId("model").value) await offerEntities().catch(tell);
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value);
  begin();
});
byId("ask").addEventListener("submit", askForecast);
byId("model").addEventListener("change", () => offerEntities().catch(tell));
begin();
setInterval(refresh, REFRESH_MS);
