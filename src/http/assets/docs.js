// The API reference, rendered from /openapi.json of this very installation.

import { by, call, h, session } from './session.js';

const METHODS = ['get', 'post', 'patch', 'delete'];

/** Text in which `backticks` mark code. */
function prose(text) {
  return (text ?? '').split('`').map((part, at) => (at % 2 === 1 ? h('code', {}, part) : part));
}

/** The schema without references; an object in parts (`allOf`) is one, and one that may be null (`oneOf`) is itself. */
function resolve(description, schema) {
  const name = schema?.$ref?.split('/').pop();
  if (name) return resolve(description, description.components.schemas[name]);
  if (schema?.allOf) {
    const parts = schema.allOf.map((part) => resolve(description, part));
    const properties = Object.assign({}, ...parts.map((part) => part.properties));
    return { type: 'object', properties, required: parts.flatMap((part) => part.required ?? []) };
  }
  if (schema?.oneOf) {
    const real = resolve(description, schema.oneOf.find((part) => part.type !== 'null'));
    return { ...real, type: [real.type, 'null'].flat() };
  }
  return schema ?? {};
}

function kind(description, schema) {
  const real = resolve(description, schema);
  if (real.enum) return real.enum.join(' | ');
  const types = [real.type ?? 'any'].flat().map((type) => (type === 'null' ? 'null' : type));
  if (types.includes('array')) return `list of ${kind(description, real.items)}${types.includes('null') ? ' | null' : ''}`;
  return types.join(' | ') + (real.format ? ` (${real.format})` : '');
}

/** `absence` says what it means that a field is not required. */
function fields(description, schema, absence) {
  const real = resolve(description, schema);
  const required = new Set(real.required ?? []);
  const rows = Object.entries(real.properties ?? {}).map(([name, property]) => {
    const inner = resolve(description, property.items ?? property);
    return h('tr', {},
      h('td', {}, h('code', {}, name), required.has(name) ? null : h('small', {}, absence)),
      h('td', {}, kind(description, property)),
      h('td', {}, prose(property.description ?? property.oneOf?.[0].description), inner.properties ? nested(description, inner, absence) : null));
  });
  return rows.length === 0 ? null : h('div', { class: 'scroll' }, h('table', {}, h('tbody', {}, rows)));
}

function nested(description, schema, absence) {
  return h('details', { class: 'nested' }, h('summary', {}, 'fields'), fields(description, schema, absence));
}

function parameters(list) {
  if (list.length === 0) return null;
  return [h('h4', {}, 'Parameters'), h('div', { class: 'scroll' }, h('table', {}, h('tbody', {}, list.map((parameter) => h('tr', {},
    h('td', {}, h('code', {}, parameter.name)),
    h('td', { class: 'fit' }, parameter.in),
    h('td', {}, prose(parameter.description), parameter.schema.default === undefined ? null : h('small', {}, `default ${parameter.schema.default}`)))))))];
}

function example(method, path, operation) {
  const lines = [`curl -H "Authorization: Bearer $KEY"`];
  if (method !== 'get') lines[0] += ` -X ${method.toUpperCase()}`;
  if (operation.requestBody) lines.push(`  -H 'Content-Type: application/json' -d '{...}'`);
  lines.push(`  ${location.origin}${path}`);
  return h('pre', {}, lines.join(' \\\n'));
}

function operation(description, path, method, item) {
  const body = item.requestBody?.content['application/json'].schema;
  const good = Object.entries(item.responses).find(([status]) => status < 300);
  const schema = good?.[1].content?.['application/json']?.schema;
  const bad = Object.entries(item.responses).filter(([status]) => status >= 400);
  return h('details', { class: 'operation', id: item.operationId },
    h('summary', {}, h('span', { class: `method ${method}` }, method), h('code', {}, path), h('span', { class: 'muted' }, prose(item.summary))),
    parameters(item.parameters ?? []),
    body ? [h('h4', {}, 'Body'), fields(description, body, 'may be left out')] : null,
    h('h4', {}, `Answer ${good?.[0] ?? ''}`),
    schema ? fields(description, schema, 'may be absent') : h('p', { class: 'muted' }, good?.[1].content ? 'Text.' : 'No content.'),
    h('h4', {}, 'Problems'),
    h('ul', { class: 'problems' }, bad.map(([status, answer]) => h('li', {}, h('code', {}, status), ' ', prose(answer.description)))),
    example(method, path, item));
}

function render(description) {
  by('about').replaceChildren(...prose(description.info.description));
  by('example').textContent = `curl -H "Authorization: Bearer $KEY" ${location.origin}/api/v1/status`;
  const groups = new Map(description.tags.map((tag) => [tag.name, []]));
  for (const [path, item] of Object.entries(description.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const tag = item[method].tags[0];
      groups.get(tag)?.push(operation(description, path, method, item[method]));
    }
  }
  by('contents').replaceChildren(...[...groups.keys()].map((tag) => h('a', { href: `#tag-${tag}` }, tag)));
  by('operations').replaceChildren(...[...groups].map(([tag, operations]) =>
    h('section', { class: 'card', id: `tag-${tag}` }, h('h2', {}, tag), operations)));
}

session(async () => render(await call('GET', '/openapi.json')));
