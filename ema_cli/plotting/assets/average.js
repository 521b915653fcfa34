'use strict';
// The average of one series for one weight, as the command has it: the same recursion over the same rows.

const LN2 = Math.LN2;
const UNITS = {ns: 1, us: 1e3, ms: 1e6, s: 1e9, min: 60e9, h: 3600e9, d: 86400e9, w: 604800e9};
const UNIT_NAMES = {
  µs: 'us', nanosecond: 'ns', microsecond: 'us', millisecond: 'ms', sec: 's', second: 's', m: 'min', t: 'min',
  minute: 'min', hr: 'h', hour: 'h', day: 'd', week: 'w',
};

/**
 * Walk over a series. trace: {values, since, number, afresh, weights} of n rows: what was read (NaN is missing),
 * nanoseconds since its first time or null, the number of each row where rows between them are not here, else null,
 * `afresh`, 1 where the series begins again, or null, and how much each row counts, or null where all do alike.
 * how: {timed, adjust, centered, start, lead, seed, missing, fill, needed, gap}; start is null or the average before
 * the first row, `lead` nanoseconds before it. weight: {alpha}, or {rate} a nanosecond. trend: n numbers to fill, or
 * null. Returns {squares, count, residuals, rows}: the sum of squared one-step errors and of how many, and of the
 * squared residuals and of how many. An average that knows later rows forecasts nothing, so it has no such errors.
 */
function follow(trace, how, weight, trend) {
  const out = {squares: 0, count: 0, residuals: 0, rows: 0};
  const step = stepper(trace, how, weight), after = how.centered ? lookBack(trace, how, weight) : null;
  const {values, afresh, weights} = trace, n = values.length;
  let held = NaN;
  for (let i = 0; i < n; i++) {
    const value = values[i];
    if (afresh && afresh[i]) {
      step.restart();
      held = NaN;
    }
    if (!counts(value, weights, i)) {
      step.pass();
      if (trend) trend[i] = how.fill ? held : NaN;
      continue;
    }
    const before = step.mean, seen = step.count;
    step.see(value, i);
    if (step.count > 1 && seen >= how.seed && !after) {
      out.squares += (value - before) ** 2;
      out.count++;
    }
    held = step.count < how.needed ? NaN : after ? joined(step, after, i, value, weights ? weights[i] : 1) : step.mean;
    if (held === held) {
      out.residuals += (value - held) ** 2;
      out.rows++;
    }
    if (trend) trend[i] = held;
  }
  return out;
}

const stepper = (trace, how, weight) => (how.timed ? byTime(trace, how, weight) : byRow(trace, how, weight));

/** Whether a row is one at all: it has a value, and that counts for something. */
const counts = (value, weights, i) => value === value && (!weights || weights[i] > 0);

/** From the last row back: {mean, total}, the average of each row and all after it, and their weights' sum. */
function lookBack(trace, how, weight) {
  const {values, weights} = trace, n = values.length, step = stepper(trace, how, weight);
  const mean = new Float64Array(n), total = new Float64Array(n);
  for (let i = n - 1; i >= 0; i--) {
    if (!counts(values[i], weights, i)) {
      step.pass();
      continue;
    }
    step.see(values[i], i);
    mean[i] = step.mean;
    total[i] = step.total;
  }
  return {mean, total};
}

/** The average of what is before a row and what is after it; the row is in both and counts once. */
function joined(before, after, i, value, counted) {
  const {mean, total} = before;
  return mean + (after.total[i] * (after.mean[i] - mean) - counted * (value - mean)) / (total + after.total[i] - counted);
}

// A step knows `mean`, `count` of values and `total`, the sum of their weights; where the weights are not adjusted,
// the average before the first row has the weight 1.

/** Rows one after another: each forgets a share alpha. */
function byRow(trace, how, weight) {
  const {number, weights} = trace, {adjust, seed} = how, alpha = weight.alpha, logRest = Math.log1p(-alpha);
  let last = 0, gap = 0;
  const step = {
    mean: 0, count: 0, total: 0,
    pass() { gap++; },
    restart() {
      step.count = gap = 0;
      step.mean = how.start ?? 0;
      step.total = how.start === null ? 0 : 1;
    },
    see(value, i) {
      // How many rows' forgetting stands before this one.
      let k = 1;
      if (step.count && number) k = Math.max(1, Math.abs(number[i] - last));
      else if (step.count && how.missing === 'decay') k = gap + 1;
      if (number) last = number[i];
      gap = 0;
      let kept = k === 1 ? 1 - alpha : Math.exp(k * logRest), gain = alpha;
      if (adjust) gain = number && k > 1 ? (alpha > 0 ? (1 - kept) / alpha : k) : 1;
      else if (step.count < seed) kept = gain = 1;
      else if (!step.count && how.start === null) gain = 1;
      else if (number && k > 1) gain = -Math.expm1(k * logRest);
      else if (k > 1) {
        kept = kept / (kept + alpha);
        gain = 1 - kept;
      }
      // The plain mean that it sets out from is worth one row, not as many as are in it.
      if (seed && step.count === seed) step.total /= seed;
      if (weights) gain *= weights[i];
      step.total = step.total * kept + gain;
      move(step, step.mean, value, gain / step.total);
      step.count++;
    },
  };
  step.restart();
  return step;
}

/** Rows at their times: the time between two of them is forgotten; those at one time are their mean. */
function byTime(trace, how, weight) {
  const {since, weights} = trace, {adjust} = how, rate = weight.rate;
  // Of the rows at one time: what was before them, the share that they have, their mean, number and weights' sum.
  let last = 0, before = 0, older = 0, share = 1, mean = 0, tied = 0, sum = 0;
  // What the time passed last made, for rows that are evenly spaced.
  let length = NaN, kept = 1, gain = 0;
  const pass = passed => {
    if (passed === length) return;
    length = passed;
    gain = -Math.expm1(-passed * rate);
    kept = Math.exp(-passed * rate);
  };
  const step = {
    mean: 0, count: 0, total: 0,
    pass() {},
    restart() {
      step.count = 0;
      step.mean = how.start ?? 0;
      step.total = how.start === null ? 0 : 1;
    },
    see(value, i) {
      let passed = Math.abs(since[i] - last);
      if (step.count && how.gap !== null && passed > how.gap) step.restart();
      const first = !step.count, counted = weights ? weights[i] : 1;
      if (first) passed = how.lead;
      last = since[i];
      pass(passed);
      if (adjust) {
        step.total = step.total * kept + counted;
        move(step, step.mean, value, counted / step.total);
      } else {
        if (first || passed > 0) {
          before = step.mean;
          older = step.total * kept;
          share = first && how.start === null ? 1 : gain;
          mean = tied = sum = 0;
        }
        tied++;
        sum += counted;
        mean = tied === 1 ? value : mean + (value - mean) * counted / sum;
        const newer = share * sum / tied;
        step.total = older + newer;
        move(step, before, mean, newer / step.total);
      }
      step.count++;
    },
  };
  step.restart();
  return step;
}

function move(step, from, value, share) {
  step.mean = share === 1 ? value : from + share * (value - from);
}

// -- weights, as they are typed

/** What a family makes of a text: {family, text, alpha}, or {family, text, rate} by time; null where it is none. */
function readWeight(family, text, timed) {
  text = text.trim();
  if (timed) {
    const length = readDuration(text);
    if (!(length > 0)) return null;
    return {family, text, rate: (family === 'tau' ? 1 : LN2) / length};
  }
  const alpha = readAlpha(family, text);
  return alpha >= 0 && alpha <= 1 ? {family, text, alpha} : null;
}

function readAlpha(family, text) {
  const ratio = family === 'alpha' && /^([^/]+)\/([^/]+)$/.exec(text);
  const number = ratio ? readNumber(ratio[1]) / readNumber(ratio[2]) : readNumber(text);
  if (family === 'alpha') return number;
  if (family === 'decay') return rest(text, number);
  if (family === 'span') return number >= 1 ? 2 / (number + 1) : NaN;
  if (family === 'com') return number >= 0 ? 1 / (1 + number) : NaN;
  if (family === 'wilder') return number >= 1 && Number.isInteger(number) ? 1 / number : NaN;
  return number > 0 ? -Math.expm1(-LN2 / number) : NaN;
}

function readNumber(text) {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text.trim()) ? Number(text) : NaN;
}

/** 1 − d in decimal, so that 0.999 gives 0.001 and not 0.0010000000000000009. */
function rest(text, number) {
  const digits = /^0?\.(\d{1,15})$/.exec(text);
  if (!digits) return 1 - number;
  const scale = 10 ** digits[1].length;
  return (scale - Number(digits[1])) / scale;
}

function readDuration(text) {
  const parts = text.match(/(\d+\.?\d*|\.\d+)\s*([a-zµ]+)\s*/gi) || [];
  if (!parts.length || parts.join('') !== text) return NaN;
  let total = 0;
  for (const part of parts) {
    const [, count, word] = /([\d.]+)\s*([a-zµ]+)/i.exec(part);
    const size = UNITS[unitOf(word)];
    if (!size || (word === 'M')) return NaN;
    total += Number(count) * size;
  }
  return Math.round(total);
}

function unitOf(word) {
  const low = word.toLowerCase();
  return UNITS[low] ? low : UNIT_NAMES[low] || UNIT_NAMES[low.replace(/s$/, '')] || low.replace(/s$/, '');
}

function writeDuration(length) {
  const unit = Object.keys(UNITS).reverse().find(name => name !== 'w' && length >= UNITS[name]) || 'ns';
  return plain(length / UNITS[unit], 3) + unit;
}

/** A number with so many digits and no more, never with an exponent. */
function plain(number, digits) {
  if (!(number > 0)) return '0';
  const decimals = Math.max(0, Math.min(20, digits - 1 - Math.floor(Math.log10(number) + 1e-12)));
  const text = Number(number.toPrecision(digits)).toFixed(decimals);
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** The half-life of a weight, in rows or nanoseconds. */
function halflifeOf(weight) {
  if (weight.rate !== undefined) return LN2 / weight.rate;
  return weight.alpha >= 1 ? 0 : -LN2 / Math.log1p(-weight.alpha);
}

/** The weight of a family that is next to a half-life, of so many digits. */
function weightNear(family, halflife, timed, digits = 3) {
  if (timed) return readWeight(family, writeDuration(family === 'tau' ? halflife / LN2 : halflife), true);
  return readWeight(family, textOf(family, -Math.expm1(-LN2 / halflife), digits), false);
}

/** How a family says a share alpha. */
function textOf(family, alpha, digits = 3) {
  if (family === 'span') return plain(2 / alpha - 1, Math.max(digits, 1));
  if (family === 'com') return plain(1 / alpha - 1, digits);
  if (family === 'wilder') return String(Math.max(1, Math.round(1 / alpha)));
  if (family === 'halflife') return alpha >= 1 ? '0' : plain(-LN2 / Math.log1p(-alpha), digits);
  const text = plain(alpha, digits);
  if (family === 'alpha') return text;
  const decimals = (text.split('.')[1] || '').length;
  return (1 - Number(text)).toFixed(decimals);
}

if (typeof module !== 'undefined') {
  module.exports = {follow, readWeight, readDuration, writeDuration, halflifeOf, weightNear, textOf, plain};
}
