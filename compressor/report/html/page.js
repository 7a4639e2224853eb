// The page itself: knobs, the verdicts that follow them, and the teacher at a temperature. Names reach it as text, and
// leave it as text nodes; markup is only ever made of elements.
(() => {
  const { judge: data, raw, explorer } = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const { dataset, style, ...rest } = properties;
    const element = Object.assign(document.createElement(tag), rest);
    Object.assign(element.dataset, dataset);
    Object.assign(element.style, style);
    element.append(...children);
    return element;
  };
  const className = (number) => classNamed(data, number);
  const chip = (verdict) => make("span", { className: `chip ${verdict}` }, verdict);
  const WORDS = { pass: "The budget holds", fail: "The budget does not hold" };
  Object.assign(WORDS, { inconclusive: "It cannot be told yet", unmeasured: "It is not measured" });

  // What is shown and typed of a limit: shares in per cent.
  const isShare = (line) => line.unit === "%";
  const spell = (line, limit) => `${line.at_most ? "≤" : "≥"} ${isShare(line) ? digits(100 * limit, 4) : digits(limit, 4)} ${line.unit}`;
  const rounded = (value) => Number(value.toPrecision(4));

  function range(line) {
    if (line.kind === "classes") return { low: 0.01, high: 1, log: false };
    const found = data.students.map((student) => student.bases[line.name]).filter((basis) => !basis.fixed);
    const values = found.flatMap((basis) => [basis.low ?? basis.value, basis.high ?? basis.value]);
    const given = data.budget[line.name];
    if (given !== null && given !== undefined) values.push(given);
    if (isShare(line) && line.at_most) return { low: 0.0001, high: Math.min(0.99, Math.max(0.05, ...values.map((v) => 2 * v))), log: false };
    if (isShare(line)) {
      return { low: Math.max(0.01, Math.min(...values, 1) - 0.15), high: highestShare(line, values), log: false };
    }
    const positive = values.filter((value) => value > 0);
    if (!positive.length) positive.push(1);
    return { low: Math.min(...positive) / 2, high: Math.max(...positive) * 2, log: true };
  }

  const STEPS = 1000;
  const at = ({ low, high, log }, place) => (log ? low * (high / low) ** (place / STEPS) : low + ((high - low) * place) / STEPS);
  const placeOf = ({ low, high, log }, value) =>
    Math.round(STEPS * (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low)));

  let budget = { ...data.budget };
  const knobs = new Map();

  function knob(line) {
    const bounds = range(line);
    const open = data.students.filter((student) => !student.bases[line.name].fixed);
    const slider = make("input", { type: "range", min: 0, max: STEPS, step: 1, id: `knob-${line.name}` });
    const box = make("input", { type: "checkbox", id: `judge-${line.name}` });
    const told = make("output", {});
    const aside = make("p", { className: "note" });
    const label = make("label", { htmlFor: box.id }, box, `${line.label} (${line.name})`);
    slider.setAttribute("aria-label", `limit of ${line.label}`);
    if (!open.length) {
      const reason = data.students[0]?.bases[line.name].reason ?? "there is no student";
      box.disabled = slider.disabled = true;
      aside.textContent = `Not judged here: ${reason}`;
    }
    slider.addEventListener("input", () => {
      budget = { ...budget, [line.name]: rounded(at(bounds, Number(slider.value))) };
      show();
    });
    box.addEventListener("change", () => {
      budget = { ...budget, [line.name]: box.checked ? rounded(at(bounds, Number(slider.value))) : null };
      show();
    });
    knobs.set(line.name, { line, bounds, slider, box, told, aside, open });
    return make("div", { className: "knob" }, label, slider, told, aside);
  }

  function showKnob({ line, bounds, slider, box, told, aside, open }, limits, winner) {
    const limit = limits[line.name];
    box.checked = limit !== undefined;
    if (limit === undefined) {
      if (open.length) slider.value = Math.min(STEPS, Math.max(0, placeOf(bounds, line.at_most ? bounds.high : bounds.low)));
      told.textContent = "no limit";
    } else {
      slider.value = Math.min(STEPS, Math.max(0, placeOf(bounds, limit)));
      told.textContent = spell(line, limit);
      if (!Object.hasOwn(budget, line.name)) told.textContent += " (kdc's default)";
    }
    slider.setAttribute("aria-valuetext", told.textContent);
    if (line.unit === "ms" && open.length) aside.textContent = withinLimit(limit, winner);
  }

  // How many of the raw samples of what ships keep to a limit.
  function withinLimit(limit, winner) {
    if (limit === undefined || winner === null) return "";
    const index = data.students[winner].row;
    const calls = raw.variants.find((variant) => variant.row === index)?.blocks.flat() ?? [];
    const kept = calls.filter((time) => time <= limit).length;
    return calls.length ? `${kept} of ${calls.length} timed calls of ${data.students[winner].name} keep to it` : "";
  }

  function matrix(result) {
    const lines = data.lines.filter(({ name }) => name in result.limits);
    const head = make("tr", {}, make("th", { scope: "col" }, "variant"));
    const title = (name) => make("th", { scope: "col" }, name);
    head.append(title("other lines"), ...lines.map(({ name }) => title(name)));
    const rows = data.students.map((student, index) => {
      const checks = result.checks[index];
      const movable = new Set(data.lines.map(({ name }) => name));
      const others = checks.filter(({ line, verdict }) => !movable.has(line) && verdict !== "pass");
      const first = make("th", { scope: "row" }, student.name);
      if (index === result.winner) first.append(" ", make("span", { className: "chip role" }, "ships"));
      const rest = make("td", { dataset: { label: "other lines" } }, make("span"));
      rest.firstChild.append(...(others.length ? others.map(({ line, verdict }) => `${line} ${verdict} `) : ["pass"]));
      const cells = lines.map(({ name }) => {
        const check = checks.find(({ line }) => line === name);
        if (!check) return make("td", { dataset: { label: name } }, "–");
        const cell = make("td", { title: check.reason, dataset: { label: name } });
        const basis = student.bases[name];
        const told = make("span", { className: "note whole" }, interval(name, basis));
        cell.append(make("span", {}, chip(check.verdict), " ", told));
        return cell;
      });
      return make("tr", { className: index === result.winner ? "best" : "" }, first, rest, ...cells);
    });
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
    byId("matrix").replaceChildren(table);
  }

  function interval(name, basis) {
    if (basis.low === undefined) return basis.value === undefined ? "" : digits(basis.value, 4);
    const factor = data.lines.find((line) => line.name === name).unit === "%" ? 100 : 1;
    return `[${digits(factor * basis.low, 4)}–${digits(factor * basis.high, 4)}]`;
  }

  function limitLines(limits) {
    const all = { ...limits, temperature: temperature() };
    for (const line of document.querySelectorAll("line.limit")) {
      const { low, high, start, end, log, upright, line: name } = line.dataset;
      const on = (value) => (log === "1" ? Math.log(value) : Number(value));
      const share = (on(all[name]) - on(low)) / (on(high) - on(low));
      const visible = all[name] !== undefined && share >= 0 && share <= 1;
      line.setAttribute("visibility", visible ? "visible" : "hidden");
      if (!visible) continue;
      const place = Number(start) + (Number(end) - Number(start)) * share;
      for (const axis of upright === "1" ? ["x1", "x2"] : ["y1", "y2"]) line.setAttribute(axis, place.toFixed(1));
    }
  }

  // A limit's line in a drawing, held and moved; its slider does the same for keys.
  function handle(line) {
    const { low, high, start, end, log, upright, line: name } = line.dataset;
    const svg = line.ownerSVGElement;
    const grip = line.cloneNode();
    grip.classList.add("grip");
    line.after(grip);
    grip.addEventListener("pointerdown", (event) => grip.setPointerCapture(event.pointerId));
    grip.addEventListener("pointermove", (event) => {
      if (!grip.hasPointerCapture(event.pointerId)) return;
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const share = ((upright === "1" ? point.x : point.y) - start) / (end - start);
      const inside = Math.min(0.999, Math.max(0.001, share));
      const bounds = { low: Number(low), high: Number(high), log: log === "1" };
      const kept = data.lines.find((known) => known.name === name && isShare(known) && !known.at_most);
      const most = kept ? highestShare(kept, []) : Infinity;
      budget = { ...budget, [name]: rounded(Math.min(most, at(bounds, STEPS * inside))) };
      show();
    });
  }

  // Lines that a `--set` would have to name: null and not given are the same, but for a line that has a default.
  const defaults = limitsOf(data, {});
  const moved = () =>
    data.lines
      .map(({ name }) => name)
      .filter((name) => {
        const [now, before] = [budget, data.budget].map((limits) => limits[name] ?? null);
        return now !== before || (name in defaults && Object.hasOwn(budget, name) !== Object.hasOwn(data.budget, name));
      });

  function show() {
    const result = judgeAll(data, budget);
    for (const found of knobs.values()) showKnob(found, result.limits, result.winner);
    const shipped = result.winner === null ? null : data.students[result.winner].name;
    byId("outcome").replaceChildren(
      chip(result.verdict),
      ` ${shipped === null ? "none can be chosen" : `ships ${shipped}`}: ${result.why}. kdc check would end with ${result.exit_code}.`,
    );
    matrix(result);
    limitLines(result.limits);
    const changed = moved();
    byId("moved").hidden = !changed.length;
    byId("verdict").className = result.verdict;
    byId("badge").className = `chip ${result.verdict}`;
    byId("badge").textContent = result.verdict;
    byId("said").textContent = WORDS[result.verdict];
    byId("ships").textContent = shipped ?? "none can be chosen";
    byId("why").textContent = `${result.why}.`;
    const sets = changed.map((name) => `--set budget.${name}=${budget[name] ?? "null"}`);
    byId("keep").textContent = sets.length ? `kdc export RUN --profile ${data.profile} --out BUNDLE ${sets.join(" ")}` : "nothing was moved";
    window.kdc = { budget, result };
  }

  function reset() {
    budget = { ...data.budget };
    show();
  }

  // Any percentile of the raw samples, with its interval, computed here.
  function quantiles() {
    const place = byId("quantiles");
    if (!place || raw.every > 1) return;
    const slider = make("input", { type: "range", min: 10, max: 99, step: 1, value: 90, id: "quantile" });
    const title = make("label", { htmlFor: "quantile" });
    const list = make("ul", { className: "plain note" });
    const update = () => {
      const q = Number(slider.value) / 100;
      title.textContent = `p${slider.value} of the raw samples, with its ${digits(100 * raw.confidence, 5).replace(/\.?0+$/, "")} % interval, computed here`;
      const items = raw.variants.map(({ row, blocks }) => {
        const found = percentile(blocks, q, raw.confidence);
        const told = found ? `${digits(found.value)} [${digits(found.low)}–${digits(found.high)}] ms, n = ${found.n} blocks` : "too few samples";
        return make("li", {}, `${data.rows[row]}: ${told}`);
      });
      list.replaceChildren(...items);
    };
    slider.addEventListener("input", update);
    place.append(title, slider, list);
    update();
  }

  // The teacher's answer to a sample, softened, and mixed with the label.
  const knobsOfTeacher = {};
  const temperature = () => (knobsOfTeacher.temperature ? Number(knobsOfTeacher.temperature.value) : undefined);

  function teacher() {
    const place = byId("explorer");
    if (!place || !explorer.samples.length) return;
    const pick = make("select", { id: "sample" });
    explorer.samples.forEach(({ name, label }, index) => {
      pick.append(make("option", { value: index }, `${name} (${className(label)})`));
    });
    const heat = make("input", { type: "range", min: 1, max: 20, step: 0.5, id: "temperature" });
    heat.value = explorer.temperature ?? 4;
    const mix = make("input", { type: "range", min: 0, max: 1, step: 0.01, id: "alpha" });
    mix.value = explorer.alpha ?? 1;
    const heatTold = make("output", {});
    const mixTold = make("output", {});
    const row = (id, text, input, told) => make("div", { className: "knob" }, make("label", { htmlFor: id }, text), input, told);
    const bars = make("div", { className: "soft" });
    const picture = make("img", { alt: "", width: 56, height: 56 });
    const told = make("p", { className: "note", id: "softened" });
    const mean = make("p", { className: "note", id: "mean" });
    Object.assign(knobsOfTeacher, { temperature: heat });
    const update = () => {
      const sample = explorer.samples[Number(pick.value)];
      const [T, alpha] = [Number(heat.value), Number(mix.value)];
      const soft = softened(sample.logits, T);
      heatTold.textContent = `T = ${T}${T === explorer.temperature ? ", the recipe's" : ""}`;
      mixTold.textContent = `α = ${alpha.toFixed(2)}${explorer.alpha !== null && Math.abs(alpha - explorer.alpha) < 0.005 ? ", the recipe's" : ""}`;
      picture.hidden = !sample.picture;
      if (sample.picture) picture.src = sample.picture;
      const target = soft.shares.map((share, number) => alpha * share + (number === sample.label ? 1 - alpha : 0));
      const order = [...target.keys()].sort((a, b) => target[b] - target[a]);
      const most = order.slice(0, 10);
      const rest = order.slice(10).reduce((sum, number) => sum + target[number], 0);
      const bar = (name, share, own) => [
        make("span", {}, name),
        make("span", { className: own ? "label-of" : "" }, make("i", { style: { width: `${100 * share}%` } })),
        make("span", {}, share.toFixed(4)),
      ];
      bars.replaceChildren(
        ...most.flatMap((number) => bar(className(number) + (number === sample.label ? " ✓" : ""), target[number], number === sample.label)),
        ...(order.length > 10 ? bar(`${order.length - 10} other classes`, rest, false) : []),
      );
      const dark = 1 - soft.confidence;
      told.textContent =
        `The teacher here: entropy ${digits(soft.entropy)} of at most ${digits(Math.log(target.length))} nats, top confidence ` +
        `${soft.confidence.toFixed(4)}, dark knowledge (what the other classes get) ${dark.toFixed(4)}.`;
      const { entropy, confidence } = explorer.mean[explorer.temperatures.indexOf(T)];
      mean.textContent =
        `In the mean over ${explorer.n} of ${explorer.of} test samples: entropy ${digits(entropy)}, top confidence ` +
        `${confidence.toFixed(4)}, dark knowledge ${(1 - confidence).toFixed(4)}.`;
      limitLines(window.kdc.result.limits);
    };
    for (const input of [pick, heat, mix]) input.addEventListener("input", update);
    const against = explorer.soft === null ? "the recipe has no such term" : `${explorer.soft} against cross_entropy`;
    place.append(
      make("div", { className: "knob" }, make("label", { htmlFor: "sample" }, "test sample"), pick, picture),
      row("temperature", "temperature", heat, heatTold),
      row("alpha", `α, teacher against label (${against})`, mix, mixTold),
      bars, told, mean,
      make("p", { className: "note" }, "Bars: what the student is asked for, α × the softened teacher + (1 − α) × the label (✓), which is the whole of the two terms at T = 1; at higher T the teacher's part teaches in its own softened scale."),
    );
    update();
  }

  // Tables of layers are sorted by whatever column is chosen: numbers the largest first, what is none at the end.
  for (const box of document.querySelectorAll("#layers .rows")) {
    const rows = [...box.querySelector("tbody").rows];
    const titles = [...box.querySelectorAll("thead th")].map((cell) => cell.textContent);
    const options = ["as given", ...titles].map((title, value) => make("option", { value }, title));
    const select = make("select", {}, ...options);
    const valueOf = (row, column) => {
      const text = row.cells[column].textContent.replace("−", "-").trim();
      return { text, number: column ? Number.parseFloat(text) : Number.NaN };
    };
    const order = (a, b) => {
      const told = [a, b].map(({ number }) => !Number.isNaN(number));
      if (told[0] && told[1]) return b.number - a.number;
      return told[1] - told[0] || a.text.localeCompare(b.text);
    };
    select.addEventListener("change", () => {
      const column = Number(select.value) - 1;
      const sorted = column < 0 ? rows : [...rows].sort((a, b) => order(valueOf(a, column), valueOf(b, column)));
      box.querySelector("tbody").append(...sorted);
    });
    box.querySelector("table").before(make("label", { className: "note" }, "sort by", select));
  }

  const first = limitsOf(data, data.budget);
  const near = ({ name }) => name in first || ["p50_ms", "size_mb", "min_retention"].includes(name);
  byId("limits").append(...data.lines.filter(near).map(knob));
  byId("others").append(...data.lines.filter((line) => !near(line)).map(knob));
  for (const line of [...document.querySelectorAll("line.limit")]) if (knobs.has(line.dataset.line)) handle(line);
  for (const button of document.querySelectorAll("button.reset")) button.addEventListener("click", reset);
  show();
  quantiles();
  teacher();
})();
