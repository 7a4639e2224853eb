"use strict";
// What kdc's Python decides, decided again in the browser: the verdict on each line of a budget, which variant ships,
// and the interval of a percentile. `tests/report/test_html_judge.py` holds both together.

// The whole interval keeps to the limit, breaks it, or straddles it (stats/verdicts.py, judge).
function judge(low, high, limit, atMost) {
  if (!atMost) [low, high, limit] = [-high, -low, -limit];
  if (high <= limit) return "pass";
  return low > limit ? "fail" : "inconclusive";
}

// Wilson's score interval (stats/intervals.py, wilson).
function wilson(correct, n, z) {
  const middle = correct + (z * z) / 2;
  const spread = z * Math.sqrt((z * z) / 4 + correct * (1 - correct / n));
  return [correct > 0 ? (middle - spread) / (n + z * z) : 0, correct < n ? (middle + spread) / (n + z * z) : 1];
}

// The upper end of a retention's interval (Bonett & Price 2006; stats/paired.py, retained).
function retainedHigh(x, y, both, normal) {
  const either = x + y - both;
  const joint = Math.sqrt((either - both + 2) / ((x + 1) * (y + 1)));
  const alone = [x, y].reduce((sum, k) => sum + Math.sqrt((1 - (k + 1) / (either + 2)) / (k + 1)), 0);
  const z = (normal * joint) / alone;
  return wilson(x, either, z)[1] / wilson(y, either, z)[0];
}

// P(X <= most) for X ~ Binomial(n, p) (stats/classes.py, _binomial).
function binomial(most, n, p) {
  if (p >= 1) return most >= n ? 1 : 0;
  let log = n * Math.log1p(-p);
  let sum = Math.exp(log);
  for (let k = 1; k <= most; k++) {
    log += Math.log((n - k + 1) / k) + Math.log(p) - Math.log1p(-p);
    sum += Math.exp(log);
  }
  return sum;
}

// Whether every class keeps at least `limit` of what it is held against (stats/classes.py, judge_classes).
// counts: n, right, base, both by class; alone: held against nothing.
function judgeClasses(counts, limit, rules) {
  const { n, right, base, both, alone } = counts;
  const judged = base.map((_, number) => number).filter((number) => base[number] > 0);
  const share = (number) => right[number] / base[number];
  const total = (values, numbers) => numbers.reduce((sum, number) => sum + values[number], 0);
  const sound = judged.filter((number) => share(number) >= limit);
  const rate = Math.max(limit, (total(both, sound) + 1) / (total(base, sound) + 2));
  const low = judged.filter((number) => share(number) < limit && base[number] - right[number] >= 2);
  const suspected = low.filter((number) => judged.length * binomial(both[number], base[number], rate) <= rules.chance);
  suspected.sort((a, b) => share(a) - share(b) || base[b] - base[a]);
  const upper = (number) =>
    alone
      ? wilson(right[number], n[number], rules.z)[1]
      : retainedHigh(right[number], base[number], both[number], rules.z);
  const lost = suspected.filter((number) => upper(number) < limit);
  const doubtful = suspected.filter((number) => !lost.includes(number));
  const together = total(right, judged) < limit * total(base, judged);
  const verdict = lost.length ? "fail" : doubtful.length || together ? "inconclusive" : "pass";
  return { verdict, lost, doubtful };
}

// The lines that are judged, in the order of reports -> their limits. `budget`: what was given, null switches a line
// off (schema/profile.py, Budget.class_lines: three lines have a default, and one where there is a baseline).
function limitsOf(data, budget) {
  const given = (name) => Object.hasOwn(budget, name);
  const most = given("min_retention") && budget.min_retention !== null ? budget.min_retention : 1;
  const defaults = data.against_teacher
    ? { min_balanced_retention: Math.min(0.7, most), min_class_retention: Math.min(0.5, most) }
    : { min_class_recall: 0.1 };
  if (data.students.some((student) => student.has_baseline)) defaults.max_accuracy_loss = data.accuracy_loss;
  const limits = {};
  for (const { name } of data.lines) {
    const limit = given(name) ? budget[name] : (defaults[name] ?? null);
    if (limit !== null) limits[name] = limit;
  }
  return limits;
}

// A class by its name, where the page holds the names: of very many classes it does not.
function classNamed(data, number) {
  return data.class_names[number] ?? `class ${number}`;
}

// How far a limit on a share may be moved: what is kept of the teacher's may be more than all of it, as the budget's
// schema says too (schema/profile.py, Budget).
function highestShare(line, values) {
  return line.name.endsWith("retention") && line.kind !== "classes" ? Math.min(2, Math.max(1.02, ...values)) : 1;
}

// One line of one student: its verdict and why.
function judgeLine(data, student, line, limit, asked) {
  const basis = student.bases[line.name];
  if (basis.fixed) return { verdict: basis.fixed, reason: basis.reason };
  if (line.kind === "exact") {
    const verdict = judge(basis.value, basis.value, limit, line.at_most);
    return { verdict, reason: verdict === "pass" ? "within the limit" : "beyond the limit" };
  }
  if (line.kind === "classes") {
    const counts = countsOf(data, student, line.name === "min_class_recall");
    const { verdict, lost, doubtful } = judgeClasses(counts, limit, data.rules);
    const named = [...lost, ...doubtful].slice(0, 3).map((number) => classNamed(data, number));
    const more = lost.length + doubtful.length - named.length;
    const word = lost.length ? "lost" : "in doubt";
    const none = verdict === "pass" ? "no class looks lost" : "all classes together are below the limit";
    return { verdict, reason: named.length ? `${word}: ${named.join(", ")}${more ? ` and ${more} more` : ""}` : none };
  }
  const judged = judge(basis.low, basis.high, limit, line.at_most);
  if (line.kind === "loss") return judgeLoss(basis, judged, limit, asked);
  let verdict = { pass: basis.holds, fail: basis.breaks, inconclusive: "inconclusive" }[judged];
  let reason = { pass: "the whole interval keeps to the limit", fail: "the whole interval breaks the limit" }[judged];
  reason ??= "the interval straddles the limit: more samples would tell";
  if (verdict !== judged) reason += ", but the session was disturbed";
  // A line that nobody asked for demands no proof (report/checks/accuracy.py, _by_default).
  if (line.name === "min_balanced_retention" && !asked && verdict === "inconclusive" && basis.value >= limit) {
    [verdict, reason] = ["pass", "the figure keeps to the limit, which is all that kdc's default asks for"];
  }
  return { verdict, reason };
}

// What was lost against the baseline (report/checks/release.py, _loss_line): a class that is lost fails any limit.
function judgeLoss(basis, judged, limit, asked) {
  const unasked = judged === "inconclusive" && !asked && (basis.value <= limit || basis.low <= 0);
  const verdict = unasked ? "pass" : judged;
  if (basis.floor) return { verdict: verdict === "fail" ? "fail" : basis.floor, reason: basis.reason };
  const why = { pass: "no such loss is shown", fail: "the whole interval breaks the limit" };
  return { verdict, reason: why[verdict] ?? "the interval straddles the limit: more samples would tell" };
}

function countsOf(data, student, alone) {
  const { n, base } = data.counts;
  if (alone) return { n, right: student.right, base: n, both: student.right, alone: true };
  return { n, right: student.right, base, both: student.both, alone: false };
}

// Every line of every student, in the order of the report.
function checksOf(data, budget) {
  const limits = limitsOf(data, budget);
  const given = (name) => Object.hasOwn(budget, name);
  const concerns = (student, name) =>
    name in limits && (name !== "max_accuracy_loss" || given(name) || student.has_baseline);
  const untaught = (student, name) =>
    name === "min_class_recall" && !(name in limits) && !given(name) && student.untaught !== null;
  const checks = data.students.map((student) => [
    ...student.fixed,
    ...data.lines.flatMap((line) => {
      const { name } = line;
      if (untaught(student, name)) return [{ line: name, ...student.untaught }];
      if (!concerns(student, name)) return [];
      return [{ line: name, limit: limits[name], ...judgeLine(data, student, line, limits[name], given(name)) }];
    }),
  ]);
  return { limits, checks };
}

// The fastest of those that may be shipped (report/choice.py, choose).
function choose(data, checks) {
  const failed = checks.map((lines) =>
    lines.filter(({ line, verdict }) => verdict === "fail" && !data.on_test_labels.includes(line)).map(({ line }) => line),
  );
  const all = data.students.map((_, index) => index);
  const fit = all.filter((index) => !failed[index].length);
  const asAsked = (index) => checks[index].some(({ line, verdict }) => line === "precision" && verdict === "pass");
  const timed = fit.filter((index) => data.students[index].p50 !== null && asAsked(index));
  const name = (index) => data.students[index].name;
  if (!all.length) return { winner: null, why: "the bundle has no student variant" };
  if (!fit.length) {
    return { winner: null, why: `each fails a line: ${all.map((i) => `${name(i)} ${failed[i].join(", ")}`).join("; ")}` };
  }
  if (!timed.length) return { winner: null, why: "none that may be shipped was timed at its precision" };
  const untimed = fit.filter((index) => !timed.includes(index));
  if (untimed.length && data.elsewhere) {
    const waiting = untimed.map(name).join(", ");
    return { winner: null, why: `${waiting} may be faster, and cannot be timed here: measure on the profile's device` };
  }
  const p50 = (index) => data.students[index].p50;
  const order = [...timed].sort((a, b) => p50(a) - p50(b) || a - b);
  const [best, next] = order;
  const parts = [`the fastest of ${timed.length} that may be shipped: p50 ${digits(p50(best))} ms`];
  if (next !== undefined) parts[0] += `, next ${name(next)} ${digits(p50(next))} ms`;
  const out = all.filter((i) => failed[i].length).map((i) => `${name(i)} (fails ${failed[i].join(", ")})`);
  if (out.length) parts.push(`out: ${out.join(", ")}`);
  if (untimed.length) parts.push(`not timed: ${untimed.map(name).join(", ")}`);
  if (data.elsewhere) {
    parts.push("chosen on this machine, which is not the profile's device: measure there before you ship");
  }
  return { winner: best, why: parts.join("; ") };
}

// The verdict over all (report/gate.py, verdict_of and exit_code_for).
function verdictOf(data, checks, winner) {
  const required = (line) => data.required_lines.includes(line);
  const broken = [...data.base_checks, ...checks.flat()].some(({ line, verdict }) => required(line) && verdict === "fail");
  const verdicts = checks.map((lines) => new Set(lines.map(({ verdict }) => verdict)));
  const holds = [...verdicts.keys()].filter((index) => verdicts[index].size === 1 && verdicts[index].has("pass"));
  if (broken) return { verdict: "fail", holds };
  const shipped = winner === null ? verdicts : [verdicts[winner]];
  if (winner === null ? holds.length : holds.includes(winner)) return { verdict: "pass", holds };
  const open = shipped.filter((set) => !set.has("fail"));
  if (shipped.length && !open.length) return { verdict: "fail", holds };
  return { verdict: open.some((set) => set.has("inconclusive")) ? "inconclusive" : "unmeasured", holds };
}

function exitCode(data, checks, verdict, winner) {
  if (verdict === "fail") return 1;
  const accepted = (lines) => lines.length && lines.every((check) => ["pass", "unmeasured"].includes(check.verdict));
  const held = [...checks.keys()].filter((index) => accepted(checks[index]));
  const through = winner === null ? held.length > 0 : held.includes(winner);
  return verdict === "pass" || (data.allow_unmeasured && through) ? 0 : 3;
}

function judgeAll(data, budget) {
  const { limits, checks } = checksOf(data, budget);
  const { winner, why } = data.chosen ?? choose(data, checks);
  const { verdict, holds } = verdictOf(data, checks, winner);
  return { limits, checks, winner, why, verdict, holds, exit_code: exitCode(data, checks, verdict, winner) };
}

// As render/text.py, number: so many significant digits, no exponent.
function digits(value, most = 3) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  return value.toFixed(Math.min(20, Math.max(0, most - 1 - Math.floor(Math.log10(Math.abs(value))))));
}

// Student's t with P(|t| <= it) = confidence (stats/intervals.py, t_quantile).
function tQuantile(confidence, degrees) {
  const within = (angle) => {
    const odd = degrees % 2;
    let [term, total] = [odd ? Math.cos(angle) : 1, 0];
    for (let k = 1 + odd; k < degrees; k += 2) {
      total += term;
      term *= (k / (k + 1)) * Math.cos(angle) ** 2;
    }
    return odd ? (2 / Math.PI) * (angle + Math.sin(angle) * total) : Math.sin(angle) * total;
  };
  let [low, high] = [0, Math.PI / 2];
  for (let step = 0; step < 60; step++) {
    const angle = (low + high) / 2;
    if (within(angle) < confidence) low = angle;
    else high = angle;
  }
  return Math.tan(low) * Math.sqrt(degrees);
}

// The q-percentile of all samples with its interval (stats/latency.py, percentile); null where they are too few.
// blocks: the samples of each block, in the order of measuring.
function percentile(blocks, q, confidence, least = 10) {
  const filled = blocks.filter((block) => block.length);
  const samples = filled.flat();
  let needed = 2;
  while (q ** needed + needed * (1 - q) * q ** (needed - 1) > 0.01) needed++;
  if (samples.length < needed || filled.length < least) return null;
  const ordered = Float64Array.from(samples).sort();
  const count = ordered.length;
  const at = (rank) => {
    const place = Math.min(count, Math.max(1, rank));
    const below = Math.floor(place);
    const above = Math.min(count, below + 1);
    return ordered[below - 1] + (ordered[above - 1] - ordered[below - 1]) * (place - below);
  };
  const value = at((count - 1) * q + 1);
  const surplus = filled.map(
    (block) => block.reduce((sum, sample) => sum + (Math.sign(value - sample) + 1) / 2, 0) - q * block.length,
  );
  const n = filled.length;
  const slowest = Math.round(0.4 * n ** (2 / 3));
  let squares = 0;
  for (let k = 1; k <= slowest; k++) {
    const product = surplus.reduce((sum, part, i) => sum + part * Math.cos(((Math.PI / n) * k * (i + 0.5))), 0);
    squares += ((2 / n) * product ** 2) / slowest;
  }
  const reach = (tQuantile(confidence, slowest) * Math.sqrt(squares / n)) / (count / n);
  const bound = (far) => {
    const room = 0.75 * (far < 0 ? q : 1 - q);
    const inside = Math.sign(far) * Math.min(Math.abs(far), room);
    const point = at((q + inside) * count + 0.5);
    if (Math.abs(far) <= room || point <= 0 || value <= 0) return point;
    return value * Math.exp(Math.min(600, Math.max(-600, (far / inside) * Math.log(point / value))));
  };
  return { value, low: Math.min(value, bound(-reach)), high: Math.max(value, bound(reach)), n };
}

// softmax(z / T), its entropy in nats, and the most probable class's share (stats/softmax.py).
function softened(logits, temperature) {
  const top = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp((logit - top) / temperature));
  const sum = powers.reduce((total, power) => total + power, 0);
  const shares = powers.map((power) => power / sum);
  const entropy = -shares.reduce((total, share) => total + (share > 0 ? share * Math.log(share) : 0), 0);
  return { shares, entropy, confidence: Math.max(...shares) };
}
