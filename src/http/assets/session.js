// What both pages share: the API key of this browser tab, calls with it, and building of elements.
// Text from the API only ever becomes text nodes.

const STORE = 'waybill-key';

/** The answer of a call that did not work: `status` (0: no answer) and the problem's fields. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body?.detail ?? 'The server does not answer.');
    this.status = status;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

export async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(STORE) ?? ''}` };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      credentials: 'omit', redirect: 'error', signal: AbortSignal.timeout(60_000),
    });
  } catch {
    throw new Problem(0);
  }
  const text = await response.text();
  let parsed;
  try {
    parsed = text === '' ? undefined : JSON.parse(text);
  } catch {
    throw new Problem(response.status, { detail: 'The answer was not JSON.' });
  }
  if (!response.ok) throw new Problem(response.status, parsed, Number(response.headers.get('Retry-After') ?? 0));
  return parsed;
}

/** An element with properties and children; strings become text nodes, nothing becomes nothing. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== 'string') element[name] = value;
    else element.setAttribute(name === 'class' ? 'class' : name, value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export const by = (id) => document.getElementById(id);

/** Asks for a key until `start` works with it, and runs `start` with the key that is kept. */
export function session(start, stop) {
  let retry;
  const leave = (why) => {
    clearTimeout(retry);
    sessionStorage.removeItem(STORE);
    stop?.();
    by('content').hidden = true;
    by('sign-out').hidden = true;
    ask(why);
  };
  const enter = async () => {
    try {
      await start(leave);
      by('sign-in').replaceChildren();
      by('content').hidden = false;
      by('sign-out').hidden = false;
    } catch (problem) {
      // No answer, too often, or a failure of the server: the key may be good.
      if (problem.status === 0 || problem.status === 429 || problem.status >= 500) return wait(problem);
      leave(problem.status === 401 ? 'This key is not known here, or no longer valid.' : problem.message);
    }
  };
  // Keeps the key, and tries it again.
  const wait = (problem) => {
    clearTimeout(retry);
    retry = setTimeout(enter, Math.max(3000, (problem.retryAfter ?? 0) * 1000));
    by('sign-out').hidden = false;
    by('sign-in').replaceChildren(h('div', { class: 'card key' },
      h('p', { class: 'problem', role: 'alert' }, problem.message),
      h('p', { class: 'muted' }, 'Trying again.')));
  };
  const ask = (why) => {
    const input = h('input', {
      id: 'key', name: 'key', type: 'password', required: true, autocomplete: 'off', spellcheck: 'false',
    });
    const submit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(STORE, input.value.trim());
      enter();
    };
    by('sign-in').replaceChildren(h('form', { class: 'card key', onsubmit: submit },
      h('h1', {}, 'Your API key'),
      h('p', { class: 'muted' }, 'The first start of ', h('code', {}, 'waybill serve'), ' made an admin key. It printed the key on the terminal, or, started without one, wrote it to the file ',
        h('code', {}, 'data.admin-key'), ' beside the data directory, which is removed once the key is in use or another one is there. ', h('code', {}, 'waybill keys create'), ' makes more, while the service is stopped.'),
      h('p', { class: 'muted' }, 'The key stays in this browser tab and is gone when the tab is closed.'),
      h('label', { for: 'key' }, 'API key', input),
      why ? h('p', { class: 'problem', role: 'alert' }, why) : null,
      h('button', { type: 'submit' }, 'Continue')));
    input.focus();
  };
  by('sign-out').addEventListener('click', () => leave());
  if (sessionStorage.getItem(STORE)) enter();
  else ask();
}
