// The page: what is chosen, what is drawn, what is said. Names are put in as text, nowhere as markup.

const page = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const {average, axis, names} = page;
const TIMED = average.timed, STEPS = 1000, MOST_AT_FIRST = 12, COLUMNS_AT_FIRST = 6, FLATTEST = 4;
// A plain mean of the first N values, where N is the weight itself: a span or Wilder's, and a whole number.
const PLAIN = average.init === 'sma';
const LABELS = {halflife: 'half-life', tau: 'time constant', wilder: 'Wilder'};
const USUAL = TIMED ? ['halflife', 'tau'] : ['alpha', 'span', 'halflife', 'decay'];
const FAMILIES = (PLAIN ? [average.family] : [...new Set([...USUAL, average.family])])
  .map(family => [family, LABELS[family] || family]);
const LIGHT = {
  paper: '#ffffff', ink: '#1b1b1b', soft: '#5a5a5a', grid: '#e4e6e8', value: '#9a9a9a', further: '#d6246e',
  weights: ['#0059a8', '#c24e00', '#111111', '#00805c', '#8a3a9c'],
  runs: ['#0059a8', '#d55e00', '#00805c', '#b0457e', '#111111', '#8a6d00', '#3fa0d8', '#a33c00', '#5f9e3f',
    '#6a4fb0', '#777777', '#c23b3b'],
};
const DARK = {
  paper: '#16181b', ink: '#e9e9e9', soft: '#a9adb3', grid: '#2d3137', value: '#7c8087', further: '#ff6aa5',
  weights: ['#6db3f2', '#ff9a4d', '#f2f2f2', '#45cfa3', '#d69be6'],
  runs: ['#6db3f2', '#ff9a4d', '#45cfa3', '#f08cc0', '#f2f2f2', '#e0c04d', '#2f8fd0', '#e07038', '#9fd77a',
    '#b49bf0', '#a5a5a5', '#f08080'],
};
const DASHES = [[], [9, 3], [3, 2], [9, 3, 2, 3], [5, 5]];
const darkness = matchMedia('(prefers-color-scheme: dark)');
const colours = () => (darkness.matches ? DARK : LIGHT);
const WITH_VALUES = ['value', 'ema', 'dema', 'tema'], AROUND_ZERO = ['residual', 'diff', 'cov', 'corr'];
// What the slider averages: of a pair of columns there is no trend.
const hasTrend = column => column.panels[0] === 'value';

// -- data: arrays of numbers, packed by bytes of one place, then deflated

const unpacked = new Map();

function numbers(index) {
  if (!unpacked.has(index)) unpacked.set(index, unpack(page.arrays[index]));
  return unpacked.get(index);
}

async function unpack(text) {
  const packed = atob(text), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const n = planes.length / 8, out = new Uint8Array(planes.length);
  for (let place = 0; place < 8; place++)
    for (let i = 0, from = place * n; i < n; i++) out[i * 8 + place] = planes[from + i];
  return new Float64Array(out.buffer);
}

/** Bring in what a trace needs; it is kept. */
async function load(trace) {
  if (trace.table) return trace;
  const table = await Promise.all(trace.series.map(numbers));
  trace.since = trace.since === null ? null : await numbers(trace.since);
  trace.number = trace.number === null ? null : await numbers(trace.number);
  trace.afresh = trace.afresh === null ? null : await numbers(trace.afresh);
  trace.weights = trace.weights === null ? null : await numbers(trace.weights);
  trace.x = await numbers(trace.x);
  trace.begin = trace.x.find(x => x === x) ?? 0;
  trace.ordered = ascending(trace.x);
  trace.values = table[0];
  trace.further = new Float64Array(trace.values.length);
  trace.rest = new Float64Array(trace.values.length);
  trace.table = table;
  return trace;
}

function ascending(x) {
  for (let i = 1; i < x.length; i++) if (!(x[i] >= x[i - 1])) return false;
  return true;
}

// -- what is chosen

const chosen = {
  weight: null, family: average.family, bias: average.adjust,
  columns: page.columns.map((_, k) => k < COLUMNS_AT_FIRST || page.columns.length <= COLUMNS_AT_FIRST + 2),
  series: names.map((_, k) => k < MOST_AT_FIRST),
  parts: new Map(), log: page.log, residual: false, relative: page.relative, apart: !page.runs, same: true,
  view: null, cursor: null, touched: false,
};
let best = null;
let charts = [];

const traces = () => page.columns.flatMap((column, k) => (chosen.columns[k] ? shown(column) : []));
const shown = column => column.traces.filter(trace => chosen.series[trace.of]);
const how = (weight = chosen.weight) => {
  const own = weight.family === 'wilder' ? 1 / weight.alpha : 2 / weight.alpha - 1;
  const seed = chosen.bias ? 0 : PLAIN ? Math.round(own) : average.seed;
  return {
    timed: TIMED, adjust: chosen.bias, centered: average.centered, start: chosen.bias ? null : average.start,
    lead: average.lead, seed, missing: average.missing, fill: average.fill, needed: Math.max(average.needed, seed),
    gap: average.gap,
  };
};

/** The options that make the command do what is shown. */
function options() {
  const {weight} = chosen;
  const parts = [`--${weight.family} ${weight.text}`];
  if (average.centered) parts.push('--centered');
  else if (chosen.bias) parts.push('--adjust');
  // Wilder's average begins as a plain mean unless it is told otherwise.
  else if (average.init || weight.family === 'wilder') parts.push(`--init ${average.init || 'first'}`);
  return [...parts, ...average.others].join(' ');
}

// -- the weight

const range = halflives();

/** The least and the greatest half-life of the slider, in rows or nanoseconds. */
function halflives() {
  const {shortest, longest} = page.spacing;
  return TIMED ? [shortest / 4, Math.max(longest, shortest * 100)] : [0.15, Math.max(20, longest)];
}

const placeOf = halflife => {
  const place = STEPS * Math.log(halflife / range[0]) / Math.log(range[1] / range[0]);
  return Math.min(STEPS, Math.max(0, place || 0));
};
const halflifeAt = place => range[0] * (range[1] / range[0]) ** (place / STEPS);

function makeBoxes() {
  for (const [family, label] of FAMILIES) {
    const box = document.createElement('label');
    box.className = 'box';
    const input = document.createElement('input');
    input.type = 'text';
    input.inputMode = TIMED ? 'text' : 'decimal';
    input.id = `box-${family}`;
    input.autocomplete = 'off';
    input.spellcheck = false;
    box.append(label, input);
    $('boxes').append(box);
    input.addEventListener('change', () => typed(family, input));
    input.addEventListener('keydown', event => { if (event.key === 'Enter') typed(family, input); });
  }
}

function typed(family, input) {
  const weight = sound(readWeight(family, input.value, TIMED));
  input.setAttribute('aria-invalid', String(!weight));
  if (!weight) return say(`${input.value || 'nothing'}: no ${family} ${TIMED ? 'such as 12h or 30min' : ''}`);
  say('');
  choose(weight);
}

/** The weight, unless a plain mean of so many values can't be had. */
const sound = weight => (weight && PLAIN && !/^\d+$/.test(weight.text) ? null : weight);

function choose(weight, place = null) {
  chosen.weight = weight;
  chosen.family = weight.family;
  const halflife = halflifeOf(weight);
  if (place === null) $('slider').value = String(Math.round(placeOf(halflife)));
  for (const [family] of FAMILIES) {
    const input = $(`box-${family}`);
    input.value = family === weight.family ? weight.text : inFamily(family, weight, halflife);
    input.setAttribute('aria-invalid', 'false');
  }
  const spoken = TIMED ? `half-life ${writeDuration(halflife)}`
    : `alpha ${textOf('alpha', weight.alpha, 3)}, half-life ${plain(halflife, 3)} rows`;
  $('said').textContent = spoken;
  $('slider').setAttribute('aria-valuetext', spoken);
  sayOptions();
  refresh();
}

function inFamily(family, weight, halflife) {
  return TIMED ? writeDuration(family === 'tau' ? halflife / LN2 : halflife) : textOf(family, weight.alpha, 4);
}

function sayOptions() {
  $('options').textContent = options();
}

function say(text) {
  $('status').textContent = text;
}

async function copyOptions() {
  const text = options();
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Where a page may not use the clipboard: by a selection, as a person would.
    const field = document.createElement('textarea');
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  }
  say(`copied ${text}`);
}

// -- the error of each weight, and the best one

const STOPPED = Symbol('stopped');
let search = 0;

/** Walk over many weights, a slice at a time, and mark the one that predicts best. */
async function findBest() {
  // Extremes alone say nothing of how well each value is predicted.
  const mine = ++search;
  const used = average.centered ? [] : traces().filter(trace => trace.table && !trace.reduced && hasTrend(trace.column));
  const byColumn = page.columns.map(column => used.filter(trace => column.traces.includes(trace)));
  const groups = byColumn.filter(group => group.length);
  best = {points: [], least: null, of: new Map()};
  const tried = new Map();
  const errorsAt = async place => {
    if (!tried.has(place)) {
      await new Promise(resolve => setTimeout(resolve));
      if (mine !== search) throw STOPPED;
      const weight = PLAIN ? weightAt(place) : smoothWeight(halflifeAt(place));
      tried.set(place, groups.map(group => errorOf(group, weight)));
    }
    return tried.get(place);
  };
  try {
    for (let k = 0; k <= 40; k++) await errorsAt(k * STEPS / 40);
    for (let g = 0; g < groups.length; g++) await narrow(errorsAt, tried, g);
  } catch (error) {
    if (error === STOPPED) return; // by a newer search
    throw error;
  }
  groups.forEach((group, g) => {
    const place = lowest(tried, g);
    if (place === null) return;
    best.of.set(group[0].column, {place, error: tried.get(place)[g], weight: weightAt(place, 4)});
  });
  const mean = place => groupMean(tried, groups.length, place);
  best.points = [...tried.keys()].sort((a, b) => a - b).map(place => [place, mean(place)]);
  best.least = best.points.reduce((a, b) => (b[1] < a[1] ? b : a), [null, Infinity])[0];
  showBest();
}

const smoothWeight = halflife => (TIMED ? {rate: LN2 / halflife} : {alpha: -Math.expm1(-LN2 / halflife)});

function weightAt(place, digits = 3) {
  const weight = weightNear(chosen.family, halflifeAt(place), TIMED, digits);
  return PLAIN ? readWeight(chosen.family, String(Math.max(1, Math.round(Number(weight.text)))), false) : weight;
}

function errorOf(group, weight) {
  let squares = 0, count = 0;
  for (const trace of group) {
    const found = follow(trace, how(weight), weight, null);
    squares += found.squares;
    count += found.count;
  }
  return count ? Math.sqrt(squares / count) : NaN;
}

function lowest(tried, g) {
  let place = null;
  for (const [at, errors] of tried) if (errors[g] < (place === null ? Infinity : tried.get(place)[g])) place = at;
  return place;
}

async function narrow(errorsAt, tried, g) {
  for (let width = STEPS / 40, turn = 0; turn < 7; turn++) {
    width /= 2;
    const place = lowest(tried, g);
    if (place === null) return;
    for (const at of [place - width, place + width]) if (at >= 0 && at <= STEPS) await errorsAt(at);
  }
}

/** The mean of the columns' errors, each as a multiple of its least: one curve for all that is shown. */
function groupMean(tried, groups, place) {
  let sum = 0, count = 0;
  for (let g = 0; g < groups; g++) {
    const least = tried.get(lowest(tried, g))?.[g], error = tried.get(place)[g];
    if (least > 0 && error === error) sum += error / least, count++;
  }
  return count ? sum / count : NaN;
}

function showBest() {
  const button = $('best');
  button.hidden = best.least === null;
  if (best.least !== null) button.textContent = `Best: --${chosen.family} ${weightAt(best.least, 4).text}`;
  drawErrors();
  charts.forEach(sayNumbers);
}

function drawErrors() {
  const canvas = $('errors'), {context, width, height} = prepare(canvas), paint = colours();
  const thumb = 8, at = place => thumb + (width - 2 * thumb) * place / STEPS;
  context.fillStyle = paint.soft;
  context.font = '11px system-ui, sans-serif';
  const points = best ? best.points.filter(point => point[1] === point[1]) : [];
  if (points.length > 1) {
    const logs = points.map(point => Math.log(point[1]));
    const low = Math.min(...logs), high = Math.min(Math.max(...logs), low + 1.5) || low + 1;
    const up = y => height - 4 - (height - 20) * Math.min(1, (Math.log(y) - low) / ((high - low) || 1));
    context.beginPath();
    points.forEach(([x, y], k) => (k ? context.lineTo(at(x), up(y)) : context.moveTo(at(x), up(y))));
    context.strokeStyle = paint.soft;
    context.lineWidth = 1.5;
    context.stroke();
    context.fillText('one-step error', 2, 11);
    if (best.least !== null) {
      const x = at(best.least), y = up(points.find(point => point[0] === best.least)[1]);
      context.fillStyle = paint.ink;
      context.beginPath();
      context.arc(x, y, 4, 0, 7);
      context.fill();
      context.textAlign = x > width - 60 ? 'right' : 'left';
      context.fillText('best', x + (x > width - 60 ? -8 : 8), Math.max(11, y - 5));
      context.textAlign = 'left';
      canvas.setAttribute('aria-label', `One-step error by half-life; the best is ${$('best').textContent}`);
    }
  }
  const x = at(placeOf(halflifeOf(chosen.weight)));
  context.strokeStyle = paint.further;
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x, 0);
  context.lineTo(x, height);
  context.stroke();
}

// -- choosing columns, keys and runs

/** A strip of buttons, one a name, with a field that takes a pattern; `on` is what it changes. */
function makePicker(label, all, on, changed, swatch) {
  if (all.length < 2) return;
  const picker = document.createElement('div'), row = document.createElement('div');
  const title = document.createElement('strong'), count = document.createElement('span');
  const pattern = document.createElement('input'), chips = document.createElement('div');
  picker.className = 'picker';
  row.className = 'row';
  chips.className = 'chips';
  title.textContent = label;
  pattern.type = 'search';
  pattern.placeholder = 'name or pattern';
  pattern.setAttribute('aria-label', `${label}: only those whose name has this pattern`);
  pattern.spellcheck = false;
  picker.setAttribute('role', 'group');
  picker.setAttribute('aria-label', label);
  const first = [...on];
  const buttons = all.map((name, k) => {
    const button = document.createElement('button'), text = document.createElement('bdi');
    button.type = 'button';
    button.className = 'chip';
    text.textContent = name;
    button.title = name;
    if (swatch) button.append(swatchOf(() => swatch(k)));
    button.append(text);
    button.addEventListener('click', () => { on[k] = !on[k]; show(); });
    return button;
  });
  const matching = () => {
    const test = matcher(pattern.value);
    return all.map(test);
  };
  const set = wanted => { wanted.forEach((yes, k) => { on[k] = yes; }); show(); };
  const show = (quiet = false) => {
    buttons.forEach((button, k) => button.setAttribute('aria-pressed', String(on[k])));
    count.textContent = `${on.filter(Boolean).length} of ${all.length}`;
    if (!quiet) changed();
  };
  pattern.addEventListener('input', () => {
    const found = matching();
    buttons.forEach((button, k) => { button.hidden = !found[k]; });
    set(pattern.value ? found : first);
  });
  const button = (text, action) => {
    const made = document.createElement('button');
    made.type = 'button';
    made.textContent = text;
    made.setAttribute('aria-label', `${label}: ${text}`);
    made.addEventListener('click', action);
    return made;
  };
  row.append(title, count, pattern, button('All', () => set(matching())), button('None', () => set(all.map(() => false))));
  chips.append(...buttons);
  picker.append(row, chips);
  $('pickers').append(picker);
  show(true);
}

/** Whether a name has a pattern: a regular expression or, where it is none, a piece of the name. */
function matcher(pattern) {
  try {
    const expression = new RegExp(pattern, 'i');
    return name => expression.test(name);
  } catch {
    return name => name.toLowerCase().includes(pattern.toLowerCase());
  }
}

/** A small piece of a line, as it is drawn; `style` gives {colour, width, dash}. */
function swatchOf(style) {
  const canvas = document.createElement('canvas');
  canvas.setAttribute('aria-hidden', 'true');
  canvas.draw = () => {
    const scale = devicePixelRatio || 1, {colour, width, dash, alpha} = style();
    canvas.width = 26 * scale;
    canvas.height = 10 * scale;
    canvas.style.width = '26px';
    canvas.style.height = '10px';
    const context = canvas.getContext('2d');
    context.scale(scale, scale);
    context.strokeStyle = colour;
    context.lineWidth = Math.min(width, 5);
    context.globalAlpha = alpha ?? 1;
    context.setLineDash(dash || []);
    context.beginPath();
    context.moveTo(1, 5);
    context.lineTo(25, 5);
    context.stroke();
  };
  swatches.push(canvas);
  return canvas;
}

const swatches = [];

/** The legend: a button for each kind of line, which shows and hides it in all charts. */
function makeKinds() {
  const several = average.weights.length > 1;
  const kinds = [['value', 'values']];
  const single = page.columns[0].fields, pairs = page.columns.find(column => !hasTrend(column))?.fields || [];
  for (const {part, weight} of [...single, ...pairs]) {
    if (part === 'value' || part === 'upper') continue;
    const what = part === 'ema' ? 'trend' : part === 'lower' ? 'bands' : part;
    kinds.push([`${part} ${weight}`, several && part !== 'diff' ? `${what} ${average.weights[weight].text}` : what]);
  }
  kinds.push(['further', "the slider's trend"]);
  for (const [key, label] of kinds) {
    chosen.parts.set(key, true);
    const button = document.createElement('button'), text = document.createElement('bdi');
    button.type = 'button';
    button.className = 'chip';
    button.dataset.part = key;
    text.textContent = label;
    const [part, weight] = key.split(' ');
    // Where series have the colours, a kind of line is shown by its width and dash.
    const neutral = () => (!chosen.apart && names.length > 1 ? {colour: colours().soft} : {});
    button.append(swatchOf(() => ({...styleOf(part, Number(weight || 0), null), ...neutral()})), text);
    button.setAttribute('aria-pressed', 'true');
    button.addEventListener('click', () => {
      chosen.parts.set(key, !chosen.parts.get(key));
      button.setAttribute('aria-pressed', String(chosen.parts.get(key)));
      build();
    });
    $('kinds').append(button);
  }
}

/** How a line looks. series: null where it is not told apart by run. */
function styleOf(part, weight, series) {
  const paint = colours();
  const own = series === null ? null : paint.runs[series % paint.runs.length];
  const dashes = own && average.weights.length < 2 ? series : weight;
  if (part === 'further') return {colour: own || paint.further, width: 3.4, dash: [], alpha: own ? 0.6 : 0.85};
  if (part === 'value') return {colour: own || paint.value, width: 1, dash: [], alpha: own ? 0.3 : 1};
  if (part === 'lower') return {colour: own || paint.weights[weight % 5], width: 8, dash: [], alpha: 0.17};
  const heavy = WITH_VALUES.includes(part);
  const colour = own || paint.weights[weight % paint.weights.length];
  return {colour, width: heavy ? 1.7 : 1, dash: heavy ? DASHES[dashes % DASHES.length] : [], alpha: 1};
}

// -- charts: a figure for each column and series, or for all series of a column

async function build() {
  await Promise.all(traces().map(load));
  const main = $('charts');
  const made = [];
  page.columns.forEach((column, k) => {
    if (!chosen.columns[k]) return;
    const all = shown(column);
    const cells = chosen.apart ? all.map(trace => [trace]) : all.length ? [all] : [];
    for (const cell of cells) made.push({column, traces: cell, together: !chosen.apart && names.length > 1});
  });
  main.style.setProperty('--least', chosen.apart && names.length > 1 ? '330px' : '620px');
  if (made.length === 1) main.style.setProperty('--least', '100%');
  charts = made.map((chart, k) => attach(chart, charts[k]));
  main.replaceChildren(...charts.map(chart => chart.figure));
  if (!charts.length) {
    const empty = document.createElement('p');
    empty.textContent = 'Nothing is chosen: switch on a column or a series above.';
    main.append(empty);
  }
  refresh();
  findBest();
}

function attach(chart, old) {
  if (old) {
    Object.assign(chart, {figure: old.figure, canvas: old.canvas, caption: old.caption, numbers: old.numbers});
  } else {
    chart.figure = document.createElement('figure');
    chart.canvas = document.createElement('canvas');
    chart.caption = document.createElement('bdi');
    chart.numbers = document.createElement('span');
    chart.numbers.className = 'numbers';
    const caption = document.createElement('figcaption');
    caption.append(chart.caption, chart.numbers);
    chart.figure.append(caption, chart.canvas);
    chart.canvas.tabIndex = 0;
    // It takes keys itself, which a picture would not be given.
    chart.canvas.setAttribute('role', 'application');
    chart.canvas.setAttribute('aria-roledescription', 'chart');
    listen(chart.canvas);
  }
  chart.canvas.chart = chart;
  const key = !chart.together && names.length > 1 ? names[chart.traces[0].of] : '';
  chart.caption.textContent = key ? `${key}: ${chart.column.name}` : chart.column.name;
  const rows = chart.traces.reduce((sum, trace) => sum + trace.rows, 0);
  chart.canvas.setAttribute('aria-label',
    `${chart.caption.textContent}: ${rows.toLocaleString('en')} rows along ${axis.label}; arrow keys read them`);
  chart.panels = panelsOf(chart);
  const low = chart.panels.length - 1, single = names.length < 2 || chart.together;
  let first = page.size ? page.size[1] : Math.round((single ? 340 : 220) * (innerWidth < 500 ? 0.85 : 1));
  if (!hasTrend(chart.column)) first = 150;
  chart.canvas.style.height = `${first + low * 120}px`;
  return chart;
}

/** What stands in a chart, from the top down. */
function panelsOf(chart) {
  const {fields} = chart.column, trendy = hasTrend(chart.column);
  const on = kind => kind === 'value' || average.weights.some((_, k) => chosen.parts.get(`${kind} ${k}`));
  const kinds = chart.column.panels.filter(on);
  if (!kinds.length) kinds.push(chart.column.panels[0]); // without its line
  if (chosen.residual && trendy && !kinds.includes('residual')) kinds.push('residual');
  const panels = kinds.map(kind => ({kind, lines: [], bands: []}));
  const by = kind => panels.find(panel => panel.kind === kind);
  for (const trace of chart.traces) {
    const series = chart.together ? trace.of : null;
    fields.forEach((field, k) => {
      const key = field.part === 'value' ? 'value' : `${field.part} ${field.weight}`;
      if (field.part === 'upper' || !chosen.parts.get(key)) return;
      const style = {part: field.part, weight: field.weight, series};
      if (field.part === 'lower') panels[0].bands.push({trace, lower: trace.table[k], upper: trace.table[k + 1], ...style});
      else (by(field.part) || panels[0]).lines.push({trace, y: trace.table[k], joined: trace.lonely[k], name: field.name, ...style});
    });
    if (chosen.parts.get('further') && trendy) {
      const style = {part: 'further', weight: 0, series, trace};
      panels[0].lines.push({y: trace.further, joined: trace.lonely[0], name: "slider's trend", ...style});
      if (chosen.residual) by('residual').lines.push({y: trace.rest, joined: trace.lonely[0], name: "slider's residual", ...style});
    }
  }
  const order = line => (line.part === 'value' ? 0 : line.part === 'further' ? 1 : 2);
  for (const panel of panels) panel.lines.sort((a, b) => order(a) - order(b));
  return panels;
}

/** Compute the slider's trend of all that is shown, and draw. */
function refresh() {
  if (!chosen.weight) return;
  for (const trace of traces()) {
    if (!trace.table || !hasTrend(trace.column)) continue;
    trace.found = follow(trace, how(), chosen.weight, trace.further);
    if (chosen.residual)
      for (let i = 0; i < trace.rest.length; i++) trace.rest[i] = trace.values[i] - trace.further[i];
  }
  redraw();
  charts.forEach(sayNumbers);
}

function sayNumbers(chart) {
  let squares = 0, count = 0, residuals = 0, rows = 0;
  for (const {found, reduced} of chart.traces) {
    if (!found) continue;
    residuals += found.residuals, rows += found.rows;
    if (!reduced) squares += found.squares, count += found.count;
  }
  const parts = [];
  if (rows) parts.push(`residual ${short(Math.sqrt(residuals / rows))}`);
  if (count) parts.push(`one-step error ${short(Math.sqrt(squares / count))}`);
  const least = best && best.of.get(chart.traces[0].column);
  if (least) parts.push(`best ${short(least.error)} at --${least.weight.family} ${least.weight.text}`);
  const reduced = chart.traces.filter(trace => trace.reduced);
  if (reduced.length && hasTrend(chart.column)) {
    const all = reduced.reduce((sum, trace) => sum + trace.rows, 0);
    const drawn = reduced.reduce((sum, trace) => sum + trace.values.length, 0);
    parts.push(`${drawn.toLocaleString('en')} of ${all.toLocaleString('en')} rows are here, the extremes of each piece: ` +
      'the slider works on these, so its trend is near the command\'s, not the same');
    if (!TIMED && !average.centered) parts.push('--alpha auto finds the best weight from all rows');
  }
  if (chosen.log && hasTrend(chart.column)) {
    const below = chart.traces.reduce((sum, trace) => sum + trace.values.filter(v => v <= 0).length, 0);
    if (below) parts.push(`${below.toLocaleString('en')} values of 0 or less have no place on a logarithmic axis`);
  }
  chart.numbers.textContent = (parts.length ? 'root mean square: ' : '') + parts.join(' · ');
}

const short = number => (number === 0 ? '0' : Number(number.toPrecision(5)).toString());

// -- drawing

let waiting = false;

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const span = view();
    const limits = commonLimits(span);
    for (const chart of charts) draw(chart, span, limits);
    swatches.forEach(canvas => canvas.draw());
    drawErrors();
  });
}

const placed = (trace, x) => (chosen.relative ? x - trace.begin : x);

/** What the axis along covers: what has been chosen, or all. */
function view() {
  if (chosen.view) return chosen.view;
  let low = Infinity, high = -Infinity;
  for (const trace of traces()) {
    if (!trace.table) continue;
    const [first, last] = trace.ends ||= ends(trace.x);
    if (first === first) low = Math.min(low, placed(trace, first)), high = Math.max(high, placed(trace, last));
  }
  if (!(low <= high)) return [0, 1];
  const margin = 0.01 * (high - low) || 0.5;
  return [low - margin, high + margin];
}

function ends(x) {
  let low = NaN, high = NaN;
  for (const at of x) {
    if (!(at >= low)) low = at === at ? at : low;
    if (!(at <= high)) high = at === at ? at : high;
  }
  return [low, high];
}

/** For each column one range of values for all of its charts, unless that would flatten most of them. */
function commonLimits(span) {
  const found = new Map();
  if (!chosen.apart || !chosen.same || names.length < 2) return found;
  for (const column of new Set(charts.map(chart => chart.column))) {
    const ranges = charts.filter(chart => chart.column === column)
      .map(chart => rangeOf(chart.panels[0], span)).filter(Boolean);
    if (ranges.length < 2) continue;
    const low = Math.min(...ranges.map(r => r[0])), high = Math.max(...ranges.map(r => r[1]));
    const sizes = ranges.map(r => r[1] - r[0]).sort((a, b) => a - b);
    if (high - low <= FLATTEST * sizes[sizes.length >> 1]) found.set(column, [low, high]);
  }
  return found;
}

/** The first row at or after a place, among ascending ones. */
function firstAt(trace, place) {
  const x = trace.x, target = chosen.relative ? place + trace.begin : place;
  let low = 0, high = x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < target) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The rows of a trace that are in view, with one on either side. */
function rowsIn(trace, span) {
  if (!trace.ordered) return [0, trace.x.length];
  return [Math.max(0, firstAt(trace, span[0]) - 1), Math.min(trace.x.length, firstAt(trace, span[1]) + 1)];
}

function rangeOf(panel, span) {
  let low = Infinity, high = -Infinity;
  const take = (trace, y) => {
    const [from, to] = rowsIn(trace, span);
    for (let i = from; i < to; i++) {
      const v = y[i];
      if (v !== v || (chosen.log && panel.kind === 'value' && v <= 0)) continue;
      const x = placed(trace, trace.x[i]);
      if (x < span[0] || x > span[1]) continue;
      if (v < low) low = v;
      if (v > high) high = v;
    }
  };
  for (const line of panel.lines) take(line.trace, line.y);
  for (const band of panel.bands) take(band.trace, band.lower), take(band.trace, band.upper);
  if (AROUND_ZERO.includes(panel.kind) && low <= high) low = Math.min(low, 0), high = Math.max(high, 0);
  return low <= high ? [low, high] : null;
}

function prepare(canvas) {
  const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return {context, width, height};
}

function draw(chart, span, limits) {
  const {context, width, height} = prepare(chart.canvas), paint = colours();
  context.fillStyle = paint.paper;
  context.fillRect(0, 0, width, height);
  context.font = '12px system-ui, sans-serif';
  const bottom = 34, top = 6, gap = 10, low = chart.panels.length - 1;
  const share = hasTrend(chart.column) ? low + 2 : low + 1;
  const lower = low ? Math.min(110, (height - bottom - top - low * gap) / share) : 0;
  const first = height - bottom - top - low * (lower + gap);
  let at = top;
  const logs = chart.panels.map(panel => chosen.log && panel.kind === 'value');
  const ranges = chart.panels.map((panel, k) => padded(k ? rangeOf(panel, span)
    : limits.get(chart.column) || rangeOf(panel, span), logs[k]));
  const ticks = ranges.map((range, k) => valueTicks(range, k ? 3 : Math.max(3, first / 55), logs[k]));
  const left = 10 + Math.max(...ticks.flat().map(tick => context.measureText(tick.label).width), 20);
  const named = chart.together && chart.traces.length > 1 && chart.traces.length <= MOST_AT_FIRST;
  const room = named ? Math.min(width * 0.2, 8 + Math.max(...chart.traces.map(trace => context.measureText(names[trace.of]).width))) : 0;
  const across = {left, right: width - 10 - room};
  chart.scale = {span, ...across, x: v => left + (across.right - left) * (v - span[0]) / (span[1] - span[0])};
  const along = alongTicks(span, Math.max(2, (across.right - left) / 110));
  chart.panels.forEach((panel, k) => {
    const box = {top: at, bottom: at + (k ? lower : first), ...across};
    at = box.bottom + gap;
    const log = logs[k], [from, to] = ranges[k];
    const size = to / 2 - from / 2 || 1;
    const up = log ? v => box.bottom - (box.bottom - box.top) * Math.log(v / from) / Math.log(to / from)
      : v => box.bottom - (box.bottom - box.top) * ((v / 2 - from / 2) / size);
    drawAxes(context, box, along, ticks[k], up, chart.scale.x, k === low);
    if (AROUND_ZERO.includes(panel.kind)) drawZero(context, box, up(0), paint);
    context.save();
    context.beginPath();
    context.rect(left, box.top, across.right - left, box.bottom - box.top);
    context.clip();
    for (const band of panel.bands) drawBand(context, band, span, chart.scale.x, up);
    for (const line of panel.lines) drawLine(context, line, span, chart.scale.x, up, log);
    context.restore();
    if (panel.kind !== 'value') label(context, panel.kind, box, paint);
    panel.box = box;
    panel.up = up;
    if (named && k === 0) nameLines(context, panel, span, box, up, log, room);
  });
  drawCursor(context, chart, paint, height - bottom);
  context.fillStyle = paint.soft;
  context.textAlign = 'center';
  context.fillText(fit(context, axis.label + (chosen.relative && !page.relative ? ' since the start' : ''), width - 60),
    (left + across.right) / 2, height - 4);
  context.textAlign = 'left';
}

/** The name of each series where its trend ends, in the order from above, none over another. */
function nameLines(context, panel, span, box, up, log, room) {
  const found = new Map();
  for (const {trace, y, part} of panel.lines) {
    if (part === 'value' && found.has(trace)) continue;
    const [from, to] = rowsIn(trace, span);
    for (let i = to - 1; i >= from; i--)
      if (y[i] === y[i] && placed(trace, trace.x[i]) <= span[1] && (!log || y[i] > 0)) {
        found.set(trace, up(y[i]));
        break;
      }
  }
  const places = [...found].map(([trace, y]) => ({trace, y: Math.min(Math.max(y, box.top + 6), box.bottom - 6)}));
  places.sort((a, b) => a.y - b.y);
  places.forEach((place, k) => { if (k) place.y = Math.max(place.y, places[k - 1].y + 13); });
  for (let k = places.length - 1, most = box.bottom - 4; k >= 0; k--, most -= 13) places[k].y = Math.min(places[k].y, most);
  context.textBaseline = 'middle';
  for (const {trace, y} of places) {
    context.fillStyle = styleOf('ema', 0, trace.of).colour;
    context.fillText(fit(context, names[trace.of], room - 2), box.right + 5, y);
  }
  context.textBaseline = 'alphabetic';
}

function label(context, text, box, paint) {
  context.globalAlpha = 0.8;
  context.fillStyle = paint.paper;
  context.fillRect(box.left + 2, box.top + 1, context.measureText(text).width + 6, 15);
  context.globalAlpha = 1;
  context.fillStyle = paint.soft;
  context.fillText(text, box.left + 5, box.top + 12);
}

function drawZero(context, box, y, paint) {
  if (!(y > box.top && y < box.bottom)) return;
  context.strokeStyle = paint.soft;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(box.left, Math.round(y) + 0.5);
  context.lineTo(box.right, Math.round(y) + 0.5);
  context.stroke();
}

function padded(range, log) {
  if (!range) return log ? [0.1, 10] : [0, 1];
  const [low, high] = range;
  if (log) return [low / 1.1, high * 1.1];
  const margin = (high / 2 - low / 2) * 0.1 || Math.abs(high) * 0.05 || 1;
  return [low - margin, high + margin];
}

function drawAxes(context, box, along, ticks, up, right, last) {
  const paint = colours();
  context.strokeStyle = paint.grid;
  context.lineWidth = 1;
  context.setLineDash([]);
  context.beginPath();
  for (const {at} of ticks) {
    const y = Math.round(up(at)) + 0.5;
    context.moveTo(box.left, y);
    context.lineTo(box.right, y);
  }
  for (const {at} of along) {
    const x = Math.round(right(at)) + 0.5;
    context.moveTo(x, box.top);
    context.lineTo(x, box.bottom);
  }
  context.stroke();
  context.fillStyle = paint.soft;
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  for (const {at, label: text} of ticks) context.fillText(text, box.left - 5, up(at));
  context.textBaseline = 'alphabetic';
  if (last) {
    let free = -Infinity;
    for (const {at, label: text} of along) {
      const half = context.measureText(text).width / 2;
      const x = Math.min(Math.max(right(at), half + 2), box.right + 8 - half);
      if (x - half < free) continue;
      context.textAlign = 'center';
      context.fillText(text, x, box.bottom + 15);
      free = x + half + 8;
    }
  }
  context.textAlign = 'left';
}

function drawBand(context, band, span, right, up) {
  const {trace} = band, [from, to] = rowsIn(trace, span);
  const style = styleOf('lower', band.weight, band.series);
  context.fillStyle = style.colour;
  context.globalAlpha = style.alpha;
  const step = Math.max(1, Math.floor((to - from) / 4000));
  for (let begin = from; begin < to;) {
    while (begin < to && !(band.lower[begin] === band.lower[begin])) begin++;
    let end = begin;
    while (end < to && band.lower[end] === band.lower[end]) end++;
    context.beginPath();
    for (let i = begin; i < end; i += step) context.lineTo(right(placed(trace, trace.x[i])), up(band.lower[i]));
    for (let i = end - 1; i >= begin; i -= step) context.lineTo(right(placed(trace, trace.x[i])), up(band.upper[i]));
    context.fill();
    begin = end;
  }
  context.globalAlpha = 1;
}

/** One line; where many rows share a pixel, their first, least, greatest and last. */
function drawLine(context, line, span, right, up, log) {
  const {trace, y} = line, x = trace.x, style = styleOf(line.part, line.weight, line.series);
  const [from, to] = rowsIn(trace, span);
  const dots = [];
  let pen = false, column = NaN, first, least, greatest, last, at = 0, alone = 0;
  context.strokeStyle = context.fillStyle = style.colour;
  context.lineWidth = style.width;
  context.globalAlpha = style.alpha;
  context.setLineDash(style.dash);
  context.lineJoin = 'round';
  context.beginPath();
  const flush = () => {
    if (column !== column) return;
    if (pen) context.lineTo(at, up(first));
    else context.moveTo(at, up(first)), pen = true;
    if (least < first) context.lineTo(at, up(least));
    if (greatest > least && greatest !== first) context.lineTo(at, up(greatest));
    if (last !== greatest || least < first) context.lineTo(at, up(last));
    column = NaN;
  };
  for (let i = from; i < to; i++) {
    const v = y[i], place = right(placed(trace, x[i]));
    if (v !== v || place !== place || (log && v <= 0)) {
      if (line.joined || place !== place) continue;
      flush();
      if (alone === 1) dots.push(at, up(last));
      pen = false;
      alone = 0;
      continue;
    }
    const pixel = trace.ordered ? Math.floor(place * 2) : NaN;
    alone++;
    if (pixel === column) {
      if (v < least) least = v;
      if (v > greatest) greatest = v;
      last = v;
      continue;
    }
    flush();
    column = trace.ordered ? pixel : i;
    at = place;
    first = least = greatest = last = v;
  }
  flush();
  if (alone === 1) dots.push(at, up(last));
  context.stroke();
  context.setLineDash([]);
  for (let k = 0; k < dots.length; k += 2) context.fillRect(dots[k] - 1.5, dots[k + 1] - 1.5, 3, 3);
  if (to - from <= 80 && line.part === 'value')
    for (let i = from; i < to; i++)
      if (y[i] === y[i]) context.fillRect(right(placed(trace, x[i])) - 2, up(y[i]) - 2, 4, 4);
  context.globalAlpha = 1;
}

function drawCursor(context, chart, paint, bottom) {
  if (chosen.drag) {
    const [a, b] = chosen.drag.map(chart.scale.x);
    context.fillStyle = paint.further;
    context.globalAlpha = 0.15;
    context.fillRect(a, 0, b - a, bottom);
    context.globalAlpha = 1;
  }
  if (chosen.cursor === null) return;
  const x = chart.scale.x(chosen.cursor);
  if (x < chart.scale.left || x > chart.scale.right) return;
  context.strokeStyle = paint.soft;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x, 6);
  context.lineTo(x, bottom);
  context.stroke();
}

function fit(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let most = text.length;
  while (most > 1 && context.measureText(`${text.slice(0, most)}…`).width > width) most--;
  return `${text.slice(0, most)}…`;
}

// -- ticks

function valueTicks([low, high], count, log) {
  if (log) return logTicks(low, high, count);
  const step = roundStep((high / 2 - low / 2) / count * 2);
  const out = [];
  for (let at = Math.ceil(low / step) * step, k = 0; at <= high && k < 60; at += step, k++)
    out.push({at: Math.abs(at) < step / 1e6 ? 0 : at, label: tickLabel(at, step)});
  return out;
}

function roundStep(raw) {
  const scale = 10 ** Math.floor(Math.log10(raw)), part = raw / scale;
  return (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10) * scale;
}

function tickLabel(at, step) {
  if (Math.abs(at) < step / 1e6) return '0';
  const size = Math.max(Math.abs(at), step);
  if (size >= 1e7 || step < 1e-6) return Number(at.toPrecision(6)).toExponential().replace('e+', 'e');
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return at.toLocaleString('en', {minimumFractionDigits: decimals, maximumFractionDigits: decimals}).replace('-', '−');
}

function logTicks(low, high, count) {
  const out = [], decades = Math.log10(high / low);
  const parts = decades > count ? [1] : decades > count / 3 ? [1, 3] : [1, 2, 3, 5, 7];
  const every = Math.max(1, Math.ceil(decades / count));
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1; power++) {
    if (parts.length === 1 && power % every) continue;
    for (const part of parts) {
      const at = part * 10 ** power;
      if (at >= low && at <= high) out.push({at, label: power >= -4 && power < 7 ? String(Number(at.toPrecision(3))) : `${part}e${power}`});
    }
  }
  return out;
}

function alongTicks(span, count) {
  if (axis.kind === 'dates' && !chosen.relative) return dateTicks(span, count);
  if (axis.kind === 'dates') return durationTicks(span, count);
  const ticks = valueTicks(span, count, false);
  return axis.kind === 'rows' ? ticks.filter(tick => Number.isInteger(tick.at)) : ticks;
}

function durationTicks(span, count) {
  const unit = ['d', 'h', 'min', 's', 'ms', 'us'].find(name => span[1] - span[0] >= 2 * UNITS[name]) || 'ns';
  const size = UNITS[unit];
  return valueTicks([span[0] / size, span[1] / size], count, false)
    .map(tick => ({at: tick.at * size, label: `${tick.label} ${unit}`}));
}

const SECOND = 1e9, DAY = 86400e9;
const DATE_STEPS = [
  ...[1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30].map(s => s * SECOND),
  ...[1, 2, 5, 10, 15, 30].map(m => m * 60 * SECOND), ...[1, 2, 3, 6, 12].map(h => h * 3600 * SECOND),
  ...[1, 2, 4, 7, 14].map(d => d * DAY),
];

/** Ticks at round dates in UTC; months and years are as long as they are. */
function dateTicks([low, high], count) {
  const raw = (high - low) / count;
  const even = DATE_STEPS.find(step => step >= raw);
  if (raw < DATE_STEPS[0]) return valueTicks([low, high], Math.min(count, 3), false).map(({at}) => ({at, label: moment(at, raw)}));
  const out = [];
  if (even) {
    const week = even === 7 * DAY || even === 14 * DAY ? 4 * DAY : 0; // on Mondays
    for (let at = Math.ceil((low - week) / even) * even + week; at <= high; at += even) out.push({at, label: moment(at, even)});
    return out;
  }
  const months = [1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200].find(m => m * 30.4 * DAY >= raw) || 1200;
  const begin = new Date(low / 1e6);
  let index = Math.floor((begin.getUTCFullYear() * 12 + begin.getUTCMonth()) / months) * months;
  for (let k = 0; k < 60; k++, index += months) {
    const at = Date.UTC(Math.floor(index / 12), index % 12) * 1e6;
    if (at > high) break;
    if (at >= low) out.push({at, label: moment(at, months * 30 * DAY)});
  }
  return out;
}

/** A moment in UTC, as finely as steps of such a size need. */
function moment(at, step) {
  const date = new Date(at / 1e6);
  if (!(date.getTime() === date.getTime())) return '';
  const text = date.toISOString();
  if (step >= 300 * DAY) return text.slice(0, 4);
  if (step >= 28 * DAY) return text.slice(0, 7);
  if (step >= DAY) return text.slice(0, 10);
  const midnight = text.slice(11, 19) === '00:00:00' && at % DAY === 0;
  if (step >= 60 * SECOND) return midnight ? text.slice(0, 10) : text.slice(11, 16);
  return step >= SECOND ? text.slice(11, 19) : text.slice(11, 23);
}

/** Where a row stands, in words. */
function said(x, trace) {
  if (axis.kind !== 'dates') return Number(x.toPrecision(12)).toLocaleString('en', {maximumFractionDigits: 9});
  if (chosen.relative) return writeDuration(Math.max(0, x));
  const text = new Date(x / 1e6).toISOString();
  if (axis.days) return text.slice(0, 10);
  return `${text.slice(0, 10)} ${text.slice(11).replace(/(:00)?\.000Z$/, '').replace('Z', '')}`;
}

// -- the pointer, the keys, the wheel

/** Listen to what happens on a canvas, once it is drawn: before that nothing on it has a place. */
function listenTo(canvas, events) {
  for (const [name, action] of Object.entries(events))
    canvas.addEventListener(name, event => { if (canvas.chart.scale) action(event); }, {passive: false});
}

const pointers = new Map();

function listen(canvas) {
  const at = event => {
    const {scale} = canvas.chart, box = canvas.getBoundingClientRect();
    return scale.span[0] + (scale.span[1] - scale.span[0]) * (event.clientX - box.left - scale.left) / (scale.right - scale.left);
  };
  listenTo(canvas, {
    pointermove(event) {
      if (pointers.size === 2) return pinch(event, canvas);
      if (chosen.drag) chosen.drag[1] = at(event);
      point(canvas, at(event), event);
    },
    // A finger that is lifted leaves what it has read, until another place is touched.
    pointerleave(event) { if (!pointers.size && event.pointerType !== 'touch') unpoint(); },
    pointerdown(event) {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, event);
      chosen.touched = event.pointerType === 'touch';
      chosen.drag = pointers.size === 1 && !chosen.touched ? [at(event), at(event)] : null;
      if (pointers.size === 1) point(canvas, at(event), event);
      else unpoint();
    },
    pointerup(event) { release(event, canvas); },
    pointercancel(event) {
      pointers.delete(event.pointerId);
      chosen.drag = null;
      unpoint(); // the page scrolls
    },
    dblclick() { zoomTo(null); },
    wheel(event) {
      if (!(event.ctrlKey || event.metaKey)) return; // the page scrolls
      event.preventDefault();
      zoom(1.2 ** (event.deltaY / 100 || 0), at(event));
    },
    keydown(event) { press(event, canvas); },
    blur() { unpoint(); },
  });
}

function release(event, canvas) {
  pointers.delete(event.pointerId);
  const {drag} = chosen;
  chosen.drag = null;
  if (!drag) return;
  const {scale} = canvas.chart, [a, b] = drag[0] < drag[1] ? drag : [drag[1], drag[0]];
  if (scale.x(b) - scale.x(a) > 6) zoomTo([a, b]);
  else redraw();
}

/** Two fingers: what is between them stays between them, so they zoom and shift. */
function pinch(event, canvas) {
  if (!pointers.has(event.pointerId)) return;
  event.preventDefault();
  const {scale} = canvas.chart, left = canvas.getBoundingClientRect().left + scale.left, [low, high] = view();
  const fingers = () => {
    const [a, b] = [...pointers.values()].map(p => p.clientX);
    return {middle: ((a + b) / 2 - left) / (scale.right - scale.left), apart: Math.max(10, Math.abs(a - b))};
  };
  const before = fingers();
  pointers.set(event.pointerId, event);
  const after = fingers(), size = (high - low) * before.apart / after.apart;
  const from = low + (high - low) * before.middle - size * after.middle;
  zoomTo([from, from + size]);
}

function zoom(factor, about = null) {
  const [low, high] = view(), centre = about ?? (chosen.cursor !== null ? chosen.cursor : (low + high) / 2);
  zoomTo([centre - (centre - low) * factor, centre + (high - centre) * factor]);
}

function zoomTo(span) {
  chosen.view = null;
  if (span) {
    const [low, high] = view(), size = Math.max(span[1] - span[0], (high - low) * 1e-9, Math.abs(low) * 1e-13);
    if (size < high - low) {
      const from = Math.min(Math.max(span[0], low), high - size);
      chosen.view = [from, from + size];
    }
  }
  redraw();
}

function shift(share) {
  const [low, high] = view(), by = share * (high - low);
  if (chosen.view) zoomTo([low + by, high + by]);
}

/** The row of a trace next to a place. */
function nearest(trace, place) {
  const x = trace.x;
  if (!trace.ordered) {
    let found = 0;
    for (let i = 1; i < x.length; i++)
      if (!(Math.abs(placed(trace, x[i]) - place) >= Math.abs(placed(trace, x[found]) - place))) found = i;
    return found;
  }
  const i = firstAt(trace, place);
  if (i === 0 || (i < x.length && placed(trace, x[i]) - place < place - placed(trace, x[i - 1]))) return Math.min(i, x.length - 1);
  return i - 1;
}

function point(canvas, place, event = null) {
  const {chart} = canvas, trace = closest(chart, place);
  if (!trace) return;
  const row = nearest(trace, place), x = placed(trace, trace.x[row]);
  chosen.cursor = x;
  redraw();
  const lines = [];
  for (const panel of chart.panels)
    for (const line of panel.lines) {
      const i = nearest(line.trace, x), v = line.y[i];
      if (placed(line.trace, line.trace.x[i]) !== x && line.trace !== trace && !near(line.trace, i, x, chart)) continue;
      lines.push([line.series === null ? line.name : `${names[line.series]} ${line.part === 'value' ? 'value' : line.name}`, v, line]);
    }
  tell(said(x, trace), lines, canvas, event);
}

const near = (trace, i, x, chart) => Math.abs(chart.scale.x(placed(trace, trace.x[i])) - chart.scale.x(x)) < 8;

function closest(chart, place) {
  let found = null, least = Infinity;
  for (const trace of chart.traces) {
    if (!trace.x.length) continue;
    const distance = Math.abs(placed(trace, trace.x[nearest(trace, place)]) - place);
    if (!(distance >= least)) least = distance, found = trace;
  }
  return found;
}

function tell(where, lines, canvas, event) {
  const tip = $('tip'), table = document.createElement('table'), caption = document.createElement('caption');
  caption.textContent = `${axis.label} ${where}`;
  table.append(caption);
  const shownLines = lines.slice(0, 24);
  for (const [name, value] of shownLines) {
    const row = table.insertRow(), head = document.createElement('th'), text = document.createElement('bdi');
    text.textContent = name;
    head.append(text);
    row.append(head);
    row.insertCell().textContent = written(value);
  }
  tip.replaceChildren(table);
  tip.hidden = false;
  const box = canvas.getBoundingClientRect();
  const x = event ? event.clientX : box.left + canvas.chart.scale.x(chosen.cursor), y = event ? event.clientY : box.top + 30;
  const size = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, x + 16 + size.width > innerWidth ? x - 16 - size.width : x + 16)}px`;
  const top = chosen.touched ? y - size.height - 28 : y + 12; // a finger covers what is below it
  tip.style.top = `${Math.max(4, Math.min(innerHeight - size.height - 4, top))}px`;
  $('spoken').textContent = event ? '' : `${where}: ${shownLines.map(([name, value]) => `${name} ${written(value)}`).join(', ')}`;
}

const written = value => (value === value ? Number(value.toPrecision(10)).toString().replace('-', '−') : '–');

function unpoint() {
  $('tip').hidden = true;
  chosen.cursor = null;
  redraw();
}

function press(event, canvas) {
  const {chart} = canvas, step = event.shiftKey ? 10 : 1;
  const walk = by => {
    const [low, high] = view(), at = chosen.cursor ?? (low + high) / 2, trace = closest(chart, at);
    if (!trace) return;
    const row = Math.min(trace.x.length - 1, Math.max(0, nearest(trace, at) + by)), x = placed(trace, trace.x[row]);
    if (x < low || x > high) zoomTo([x - (high - low) / 2, x + (high - low) / 2]);
    point(canvas, x);
  };
  const keys = {
    ArrowLeft: () => walk(-step), ArrowRight: () => walk(step), Home: () => walk(-Infinity), End: () => walk(Infinity),
    PageUp: () => walk(-100), PageDown: () => walk(100), '+': () => zoom(1 / 1.5), '=': () => zoom(1 / 1.5),
    '-': () => zoom(1.5), Escape: () => { zoomTo(null); unpoint(); },
  };
  if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  chosen.touched = false;
  keys[event.key]();
}

// -- what can be taken away

function save(name, blob) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** What is shown as a table: a row for each of every series, with the slider's trend. */
function csv() {
  const cell = text => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [['series', 'column', axis.label, 'value', `trend ${options()}`].map(cell).join(',')];
  for (const column of page.columns.filter(hasTrend))
    for (const trace of shown(column)) {
      if (!trace.table || !chosen.columns[page.columns.indexOf(column)]) continue;
      const head = `${cell(names[trace.of])},${cell(column.name)},`;
      for (let i = 0; i < trace.x.length; i++)
        lines.push(head + [cell(said(placed(trace, trace.x[i]), trace).replaceAll(',', '')), trace.values[i], trace.further[i]]
          .map(v => (v === v ? v : '')).join(','));
    }
  return `${lines.join('\n')}\n`;
}

function savePicture() {
  const parts = charts.map(chart => chart.canvas), head = 26, paint = colours();
  const scale = devicePixelRatio || 1, out = document.createElement('canvas'), context = out.getContext('2d');
  out.width = Math.max(...parts.map(part => part.width));
  out.height = parts.reduce((sum, part) => sum + part.height + head * scale, 0);
  context.fillStyle = paint.paper;
  context.fillRect(0, 0, out.width, out.height);
  let at = 0;
  charts.forEach(chart => {
    context.fillStyle = paint.ink;
    context.font = `${13 * scale}px system-ui, sans-serif`;
    context.fillText(`${chart.caption.textContent}   (slider: ${options()})`, 8 * scale, at + 18 * scale);
    context.drawImage(chart.canvas, 0, at + head * scale);
    at += chart.canvas.height + head * scale;
  });
  out.toBlob(blob => save('trend.png', blob));
}

// -- start

function connect() {
  const check = (id, key, action) => {
    $(id).checked = chosen[key];
    $(id).addEventListener('change', () => { chosen[key] = $(id).checked; action(); });
  };
  $('slider').addEventListener('input', () => {
    const place = Number($('slider').value);
    choose(weightAt(place), place);
  });
  $('copy').addEventListener('click', copyOptions);
  $('best').addEventListener('click', () => choose(weightAt(best.least, 4)));
  check('bias', 'bias', () => { sayOptions(); refresh(); findBest(); });
  // An average of both sides is bias-corrected as it is, and forecasts nothing.
  $('bias-label').hidden = $('errors').hidden = average.centered;
  check('log', 'log', () => { redraw(); charts.forEach(sayNumbers); });
  check('residual', 'residual', build);
  check('relative', 'relative', () => { chosen.view = null; redraw(); });
  check('apart', 'apart', build);
  check('same', 'same', redraw);
  for (const id of ['relative', 'apart', 'same']) $(`${id}-label`).hidden = names.length < 2 || (id === 'relative' && page.relative);
  $('left').addEventListener('click', () => shift(-0.5));
  $('right').addEventListener('click', () => shift(0.5));
  $('closer').addEventListener('click', () => zoom(0.5));
  $('farther').addEventListener('click', () => zoom(2));
  $('whole').addEventListener('click', () => zoomTo(null));
  $('table').addEventListener('click', () => save('trend.csv', new Blob([csv()], {type: 'text/csv'})));
  $('picture').addEventListener('click', savePicture);
  addEventListener('resize', redraw);
  // What a finger has read goes when another place is touched, or moves away.
  addEventListener('pointerdown', event => { if (chosen.touched && !event.target.chart) unpoint(); });
  addEventListener('scroll', () => { if (chosen.touched && !pointers.size) unpoint(); }, {passive: true});
  darkness.addEventListener('change', redraw);
}

function start() {
  $('title').textContent = page.title;
  for (const note of page.notes) {
    const item = document.createElement('li');
    item.textContent = note;
    item.dir = 'auto';
    $('notes').append(item);
  }
  page.columns.forEach(column => column.traces.forEach(trace => { trace.column = column; }));
  if (page.size) document.body.style.maxWidth = `${page.size[0]}px`;
  if (innerWidth < 600) $('choose').open = false;
  makeBoxes();
  makeKinds();
  makePicker('Columns', page.columns.map(column => column.name), chosen.columns, build, null);
  makePicker(page.runs ? 'Runs' : 'Keys', names, chosen.series, build,
    k => (chosen.apart ? {colour: colours().soft, width: 2} : styleOf('ema', 0, k)));
  connect();
  const {family, text, alpha, rate} = average.weights[0];
  choose({family, text, ...(TIMED ? {rate} : {alpha})});
  return build();
}

// For tests, and for whoever opens the console.
window.emaSmooth = {
  ready: null, page, chosen, options, csv, follow,
  get charts() { return charts; },
  get best() { return best; },
  trend: (column, series = 0) => page.columns[column].traces.find(trace => trace.of === series).further,
  found: (column, series = 0) => page.columns[column].traces.find(trace => trace.of === series).found,
};
window.emaSmooth.ready = typeof DecompressionStream === 'undefined'
  ? Promise.resolve(say('This browser is too old for this page: it cannot unpack its numbers (since 2023 all can).'))
  : start();
