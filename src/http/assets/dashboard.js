// The dashboard: asks the API every two seconds while the tab is seen, and shows what changed.

import { by, call, h, session } from './session.js';

const PAUSE_MS = 2000;
const PAUSE_MAX_MS = 30_000;

const number = new Intl.NumberFormat();
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto' });

let admin = false;
let timer;
let round = 0;
let leave;

const shown = new Map();

/** Rebuilds a section only when its data changed, so that focus and selection stay. */
function show(id, data, build) {
  const print = JSON.stringify([data, admin]);
  if (shown.get(id) === print) return;
  shown.set(id, print);
  const section = by(id);
  const focused = section.contains(document.activeElement) ? document.activeElement.id : '';
  section.replaceChildren(...[build(data)].flat());
  if (focused) by(focused)?.focus();
}

function ago(text) {
  if (!text) return 'never';
  const seconds = (new Date(text) - Date.now()) / 1000;
  const units = [['day', 86_400], ['hour', 3600], ['minute', 60]];
  const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 1];
  return relative.format(Math.round(seconds / size), unit);
}

function when(text) {
  return h('time', { datetime: text, title: text ? clock.format(new Date(text)) : undefined }, ago(text));
}

function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  const step = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(count, 1)) / 10));
  return `${number.format(Math.round((count / 1024 ** step) * 10) / 10)} ${units[step]}`;
}

const plural = (count, one, many) => `${number.format(count)} ${count === 1 ? one : many}`;
const chip = (word) => h('span', { class: `chip ${word}` }, word);

function table(caption, heads, rows) {
  return h('div', { class: 'scroll' }, h('table', {},
    h('caption', { class: 'unseen' }, caption),
    h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col' }, head)))),
    h('tbody', {}, rows.map((cells) => h('tr', {}, cells.map((cell, at) => h('td', { class: heads[at] === '' ? 'end' : undefined }, cell)))))));
}

/** What a reason is about, in words. */
function about(reason, names) {
  const of = [names[reason.shop_id] ?? reason.shop_id, reason.resource].filter(Boolean).join(', ');
  return of ? `${of}: ${reason.text}` : reason.text;
}

/** Green only while the health is ok: every stream is fresh then. */
function headline(status, names) {
  const { level, reasons } = status.health;
  const [lamp, word] = level === 'failing' ? ['bad', 'Failing']
    : level === 'attention' ? ['warn', 'Needs attention']
      : status.idle ? ['good', 'Up to date'] : ['busy', 'Working'];
  by('state').className = `lamp ${lamp}`;
  by('state').textContent = word;
  by('headline').textContent = level !== 'ok'
    ? about(reasons[0], names)
    : status.idle
      ? 'Nothing is left to do right now'
      : `${plural(status.open_runs, 'run', 'runs')} under way, ${plural(status.pending_jobs + status.leased_jobs, 'job', 'jobs')} to go`;
  by('subline').textContent = level !== 'ok' ? reasons[0].remedy : `Writing to ${status.sink.kind}`;
  by('foot').textContent = `Waybill ${status.version}, started ${ago(status.started_at)}`;
}

function tiles(status) {
  // A key that is limited to shops gets no numbers of all shops together.
  const all = status.calls !== null;
  const tile = (name, value, note, kind) =>
    h('div', { class: `tile ${kind ?? ''}` }, h('span', {}, name), h('strong', {}, value), h('small', {}, note));
  return [
    tile('Open runs', number.format(status.open_runs), plural(status.shops.active, 'active shop', 'active shops')),
    tile('Jobs', number.format(status.pending_jobs + status.leased_jobs),
      [`${number.format(status.leased_jobs)} running`, all ? `${number.format(status.waiting_jobs)} waiting for their time` : ''].filter(Boolean).join(', ')),
    ...(all
      ? [tile('Outbox', number.format(status.outbox), bytes(status.outbox_bytes)),
        tile('Calls', number.format(status.calls), `${number.format(status.refused_429)} refused for their rate`,
          status.refused_429 > 0 ? 'warn' : '')]
      : []),
    tile('Parked', number.format(status.parked), status.parked ? 'see below' : 'nothing given up',
      status.parked > 0 ? 'warn' : ''),
    ...(status.logins_paused_until
      ? [tile('Logins', 'paused', `the login host wants none until ${status.logins_paused_until}`, 'warn')]
      : []),
    ...(status.overdue.length > 0
      ? [tile('Overdue', number.format(status.overdue.length), 'not walked for long: rows may fall out of reach', 'warn')]
      : []),
  ];
}

/** Everything that is not well, but for what the headline says already. */
function reasons({ items, names }) {
  return table('Not well', ['What', 'Since', 'Remedy'], items.map((reason) => [
    h('div', {}, about(reason, names), h('small', {}, reason.code)),
    reason.since ? when(reason.since) : '',
    reason.remedy,
  ]));
}

function progress(run) {
  const ended = run.fetched + run.gone + run.parked;
  if (run.state === 'walking') {
    return [h('progress', { 'aria-label': 'walking' }),
      h('small', {}, `page ${number.format(run.pages)}, ${number.format(run.listed)} listed, ${number.format(run.to_fetch)} to read`)];
  }
  const most = Math.max(run.to_fetch, 1);
  if (['failed', 'unproved', 'stopped'].includes(run.state)) {
    // It ended before its end, so the bar is never full.
    const note = `ended on page ${number.format(run.pages)}, ${number.format(run.listed)} listed, ${number.format(ended)} of ${number.format(run.to_fetch)} read`;
    return [h('progress', { class: 'bad', max: most + 1, value: run.to_fetch === 0 ? 0 : ended, 'aria-label': note }), h('small', {}, note)];
  }
  const note = run.to_fetch === 0 ? 'nothing new' : `${number.format(ended)} of ${number.format(run.to_fetch)} read, ${number.format(run.written)} written`;
  return [h('progress', { max: most, value: run.to_fetch === 0 ? most : ended, 'aria-label': note }), h('small', {}, note)];
}

function forecast(run) {
  // While it waits for something other than its rate limit, no time of its end is known.
  const waits = run.waits_for;
  if (waits && waits.reason !== 'rate_limit') {
    return h('span', {}, `waits for ${waits.text}`, waits.until ? [' until ', h('time', { datetime: waits.until }, clock.format(new Date(waits.until)))] : null);
  }
  if (!run.forecast_at) return 'under way';
  return new Date(run.forecast_at) > Date.now() ? h('span', {}, 'ready ', when(run.forecast_at)) : 'ready any moment';
}

function runs(data) {
  if (data.items.length === 0) return h('p', { class: 'muted' }, 'No run yet. The schedule starts them; a new shop starts one at once.');
  const rows = data.items.map((run) => {
    const parameters = Object.values(run.parameters).join(', ');
    const end = run.ended_at ? when(run.ended_at) : forecast(run);
    return [
      h('div', {}, h('b', {}, data.names[run.shop_id] ?? run.shop_id), h('small', {}, [run.resource, parameters].filter(Boolean).join(', '))),
      h('div', {}, chip(run.state), h('small', {}, run.mode)),
      h('div', { class: 'progress' }, progress(run), run.error ? h('small', { class: 'problem' }, run.error) : null),
      h('div', {}, end, run.parked ? h('small', {}, `${number.format(run.parked)} parked`) : null),
    ];
  });
  return table('Runs, newest first', ['Shop', 'State', 'Progress', 'End'], rows);
}

/** What an admin may do with a shop. A refused one has nothing to sync or pause until its credentials are accepted. */
function shopButtons(shop) {
  const path = `/api/v1/shops/${encodeURIComponent(shop.id)}`;
  const button = (name, word, onclick, disabled = false) =>
    h('button', { id: `${name}-${shop.id}`, class: 'quiet', type: 'button', disabled, onclick }, word);
  if (shop.state === 'refused') {
    return [
      button('again', 'Try again', () => act('PATCH', path, { paused: false }, 'The login host accepts its secret again')),
      button('secret', 'New secret', () => askSecret(shop)),
    ];
  }
  const paused = shop.state === 'paused';
  return [
    button('sync', 'Sync now', () => act('POST', `${path}/sync`, { mode: 'incremental' }, 'Sync started'), paused),
    button('pause', paused ? 'Resume' : 'Pause', () => act('PATCH', path, { paused: !paused }, paused ? 'Resumed' : 'Paused')),
  ];
}

function shops({ items, left }) {
  if (items.length === 0) return h('p', { class: 'muted' }, 'No shop yet.');
  const rows = items.map((shop) => {
    const buttons = admin ? h('div', { class: 'row end' }, shopButtons(shop)) : '';
    return [
      h('div', {}, h('b', {}, shop.name), h('small', { class: 'code' }, shop.id)),
      h('span', { class: 'code' }, shop.client_id),
      h('div', {}, chip(shop.state), shop.reason ? h('small', { class: 'problem' }, shop.reason) : null),
      h('div', { class: 'states' }, shop.resources_health.map((resource) => h('div', { title: resource.reason ?? undefined }, resource.resource, ' ', chip(resource.state), h('small', {}, resource.last_success_at ? when(resource.last_success_at) : 'no success yet')))),
      buttons,
    ];
  });
  const more = left > 0 ? [h('p', { class: 'muted' }, `and ${number.format(left)} more: GET /api/v1/shops shows them`)] : [];
  return [table('Shops', ['Shop', 'Client id', 'State', 'Resources', ''], rows), ...more];
}

function budgets({ items, leftOut }) {
  if (items.length === 0) return h('p', { class: 'muted' }, 'No call has been made yet.');
  const more = leftOut > 0 ? [h('p', { class: 'muted' }, `and ${number.format(leftOut)} that are less busy`)] : [];
  return items.map((budget) => {
    const used = budget.in_flight + budget.cooling;
    const limit = budget.limit ?? 0;
    const pace = budget.limit === null ? 'no limit' : `${number.format(limit)} in ${number.format(budget.window_s ?? 0)} s`;
    const blocked = budget.blocked_for_ms > 0 ? `, blocked for ${Math.ceil(budget.blocked_for_ms / 1000)} s` : '';
    return h('div', { class: 'budget' },
      h('div', { class: 'row' }, h('span', { class: 'code' }, budget.rule), h('small', {}, pace)),
      budget.limit === null ? null : h('meter', { min: 0, max: limit, value: Math.min(used, limit), 'aria-label': 'slots in use' }),
      h('small', {}, `${budget.account}: ${number.format(budget.in_flight)} in flight, ${number.format(budget.cooling)} cooling, ${number.format(budget.waiting)} waiting${blocked}`));
  }).concat(more);
}

function parked(data) {
  const rows = data.items.map((item) => [
    h('div', {}, h('b', {}, data.names[item.shop_id] ?? item.shop_id), h('small', {}, item.resource)),
    h('span', { class: 'code' }, item.document_id ?? item.job),
    h('div', {}, item.reason, h('small', {}, `${plural(item.attempts, 'attempt', 'attempts')}, `, when(item.parked_at))),
    admin ? h('button', { id: `retry-${item.id}`, class: 'quiet', type: 'button', onclick: () => act('POST', `/api/v1/parked/${item.id}/retry`, undefined, 'Back to work') }, 'Retry') : '',
  ]);
  return table('Parked jobs', ['Shop', 'What', 'Why', ''], rows);
}

let toastTimer;
function toast(text, bad) {
  const box = by('toast');
  box.textContent = text;
  box.className = bad ? 'toast bad' : 'toast';
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.hidden = true; }, 5000);
}

async function act(method, path, body, done) {
  try {
    await call(method, path, body);
    toast(done);
    schedule(0);
  } catch (problem) {
    toast(problem.message, true);
  }
}

async function look() {
  const [status, shopPage, runPage, parkedPage] = await Promise.all([
    call('GET', '/api/v1/status'), call('GET', '/api/v1/shops?limit=200'),
    call('GET', '/api/v1/runs?limit=20'), call('GET', '/api/v1/parked?limit=20'),
  ]);
  const names = Object.fromEntries(shopPage.items.map((shop) => [shop.id, shop.name]));
  headline(status, names);
  show('tiles', status, tiles);
  show('budgets', { items: status.budgets, leftOut: status.budgets_left_out }, budgets);
  // The minute keeps "5 minutes ago" moving without rebuilding the rows every time.
  const minute = Math.floor(Date.now() / 60_000);
  show('runs', { items: runPage.items, names, minute }, runs);
  const registered = status.shops.active + status.shops.paused + status.shops.refused;
  // Ages move with the minute; what else changes by itself is not shown.
  const still = shopPage.items.map((shop) => ({ ...shop, resources_health: shop.resources_health.map(({ age_seconds: _, next_due_at: __, ...rest }) => rest) }));
  show('shops', { items: still, left: registered - shopPage.items.length, minute }, shops);
  by('reasons-card').hidden = status.health.reasons.length < 2;
  show('reasons', { items: status.health.reasons, names, minute }, reasons);
  by('parked-card').hidden = parkedPage.items.length === 0;
  show('parked', { items: parkedPage.items, names, minute }, parked);
}

function schedule(pause) {
  clearTimeout(timer);
  const mine = ++round;
  timer = setTimeout(async () => {
    if (document.hidden) return;
    let next = PAUSE_MS;
    try {
      await look();
    } catch (problem) {
      if (problem.status === 401) return leave('This key is no longer valid.');
      by('state').className = 'lamp bad';
      by('state').textContent = 'No answer';
      next = Math.min(PAUSE_MAX_MS, Math.max(pause * 2, PAUSE_MS, (problem.retryAfter ?? 0) * 1000));
    }
    if (mine === round) schedule(next);
  }, pause);
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !by('content').hidden) schedule(0);
});

/** A dialog with a form: what it sends, and what is said when that was accepted. */
function form(name, send, done) {
  const [dialog, problem] = [by(`${name}-dialog`), by(`${name}-problem`)];
  by(`${name}-cancel`).addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => by(`${name}-form`).reset());
  by(`${name}-form`).addEventListener('submit', async (event) => {
    event.preventDefault();
    const submit = event.submitter;
    submit.disabled = true;
    try {
      const shop = await send(Object.fromEntries(new FormData(event.target)));
      dialog.close();
      toast(done(shop));
      schedule(0);
    } catch (failed) {
      problem.textContent = failed.message;
      problem.hidden = false;
    } finally {
      submit.disabled = false;
    }
  });
  return () => {
    problem.hidden = true;
    dialog.showModal();
  };
}

const askShop = form('shop', (fields) => call('POST', '/api/v1/shops', fields),
  (shop) => `${shop.name} is added; its first sync has started`);
by('add-shop').addEventListener('click', askShop);

let refused;
const openSecret = form('secret', (fields) => call('PATCH', `/api/v1/shops/${encodeURIComponent(refused.id)}`, fields),
  (shop) => `${shop.name} is active again`);
function askSecret(shop) {
  refused = shop;
  by('secret-title').textContent = `New secret of ${shop.name}`;
  openSecret();
}

session(async (leaveSession) => {
  leave = leaveSession;
  shown.clear();
  // Only an admin key may list keys, so this decides which buttons are shown.
  admin = await call('GET', '/api/v1/keys').then(() => true, (problem) => {
    if (problem.status === 403) return false;
    throw problem;
  });
  by('add-shop').hidden = !admin;
  await look();
  schedule(PAUSE_MS);
}, () => {
  round += 1;
  clearTimeout(timer);
});
