import type { ServerResponse } from 'node:http';
import type { AnyObject } from '../../json.ts';
import { forbiddenField } from '../../validate.ts';
import type { ServedKind } from '../catalog.ts';
import { expired, invalid, type Status } from '../status.ts';
import type { StoreEvent } from '../storage/history.ts';
import type { Store } from '../storage/store.ts';
import type { Exchange } from './exchange.ts';
import { type Form, negotiate } from './negotiate.ts';
import { checkNotNewer, inVersion } from './read.ts';
import type { Route } from './route.ts';
import { type Selection, selectionOf } from './select.ts';
import { partialOf, tableOf } from './table.ts';

/** A watcher that has fallen behind by so much is cut off; it comes back with the version that it has. */
const backlogLimit = 32 * 1024 * 1024;

export interface WatchTiming {
  readonly bookmarkMs: number;
}

/** GET with watch=true. The connection stays until its time is up, the client goes, or `signal` fires. */
export function watch(exchange: Exchange, store: Store, route: Route, timing: WatchTiming, signal: AbortSignal): void {
  const form = negotiate(exchange.request.headers.accept, exchange.parameter('includeObject'));
  const selection = selectionOf(exchange, route);
  const start = startOf(exchange, store);
  // From here to the subscription nothing else runs, so no change falls between the two.
  const { response } = exchange;
  response.writeHead(200, { 'content-type': 'application/json;stream=watch', 'cache-control': 'no-cache, private' });
  response.flushHeaders();
  const stream = new WatchStream(response, route.kind, form, selection);
  if (start.initial) for (const { object, json } of store.list(route.kind.id)) stream.initial(object, json);
  if (start.initial && start.endMark) stream.bookmark(store.revision, true);
  const missed = start.initial ? [] : store.eventsAfter(start.revision);
  if (missed === undefined) {
    stream.error(expired(`too old resource version: ${start.revision} (${store.oldestRevision})`).status);
    response.end();
    return;
  }
  for (const event of missed) if (event.resource === route.kind.id) stream.event(event);
  hold(exchange, store, route.kind, stream, timing, signal);
}

function hold(
  exchange: Exchange,
  store: Store,
  kind: ServedKind,
  stream: WatchStream,
  timing: WatchTiming,
  signal: AbortSignal,
): void {
  const { response } = exchange;
  const seconds = exchange.number('timeoutSeconds') || 1800 + Math.floor(Math.random() * 1800);
  const marks = exchange.flag('allowWatchBookmarks') === true;
  const stop = (abrupt: boolean) => {
    unsubscribe();
    clearTimeout(deadline);
    clearInterval(beat);
    signal.removeEventListener('abort', end);
    response.off('close', gone);
    if (abrupt) response.destroy();
    else response.end();
  };
  const gone = () => stop(true);
  const end = () => {
    if (marks) stream.bookmark(store.revision, false);
    stop(false);
  };
  const unsubscribe = store.subscribe(kind.id, (event) => {
    stream.event(event);
    if (response.writableLength > backlogLimit) stop(true);
  });
  const deadline = setTimeout(end, 1000 * Math.min(seconds, 86400));
  const beat = setInterval(() => {
    if (marks) stream.bookmark(store.revision, false);
  }, timing.bookmarkMs);
  response.on('close', gone);
  if (signal.aborted) end();
  else signal.addEventListener('abort', end);
}

interface Start {
  readonly initial: boolean;
  readonly endMark: boolean;
  readonly revision: number;
}

function startOf(exchange: Exchange, store: Store): Start {
  const asked = exchange.parameter('resourceVersion');
  const match = exchange.parameter('resourceVersionMatch');
  const sendInitial = exchange.flag('sendInitialEvents');
  const options = { group: 'meta.k8s.io', version: 'v1', kind: 'ListOptions', plural: 'listoptions' };
  if (sendInitial === undefined && match !== undefined)
    throw invalid(options, '', [
      forbiddenField(
        'resourceVersionMatch',
        'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided',
      ),
    ]);
  if (sendInitial !== undefined && match !== 'NotOlderThan')
    throw invalid(options, '', [
      forbiddenField('resourceVersionMatch', 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan'),
    ]);
  const revision = asked === undefined ? 0 : checkNotNewer(asked, store);
  if (sendInitial === true) return { initial: true, endMark: exchange.flag('allowWatchBookmarks') === true, revision };
  if (revision === 0) return { initial: sendInitial === undefined, endMark: false, revision: store.revision };
  return { initial: false, endMark: false, revision };
}

/** Writes the events of one watch. */
class WatchStream {
  readonly #response: ServerResponse;
  readonly #kind: ServedKind;
  readonly #form: Form;
  readonly #selection: Selection;
  #headers = true;

  constructor(response: ServerResponse, kind: ServedKind, form: Form, selection: Selection) {
    this.#response = response;
    this.#kind = kind;
    this.#form = form;
    this.#selection = selection;
  }

  initial(object: AnyObject, json: string): void {
    if (this.#selection.matches(object)) this.#write('ADDED', object, json);
  }

  /** What the change is to this watcher: an object that comes to match is added, one that matches no more is deleted. */
  event({ type, object, json, previous }: StoreEvent): void {
    const matches = this.#selection.matches(object);
    const matched = previous !== undefined && this.#selection.matches(previous);
    if (type === 'DELETED') {
      if (matched) this.#write('DELETED', object, json);
    } else if (matches) this.#write(matched ? 'MODIFIED' : 'ADDED', object, json);
    else if (matched && previous !== undefined) {
      const { resourceVersion } = object.metadata;
      const last = { ...previous, metadata: { ...previous.metadata, resourceVersion } };
      this.#write('DELETED', last, JSON.stringify(last));
    }
  }

  bookmark(revision: number, initialEventsEnd: boolean): void {
    const annotations = initialEventsEnd ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {};
    const metadata = { resourceVersion: String(revision), creationTimestamp: null, ...annotations };
    const { kind, apiVersion } = this.#kind;
    const object =
      this.#form.as === 'table' ? tableOf(this.#kind, [], this.#form, metadata, false) : { kind, apiVersion, metadata };
    this.#line('BOOKMARK', JSON.stringify(object));
  }

  error(status: Status): void {
    this.#line('ERROR', JSON.stringify(status));
  }

  #write(type: string, object: AnyObject, json: string): void {
    const kind = this.#kind;
    const form = this.#form;
    if (form.as === 'objects') {
      const same = kind.apiVersion === kind.storageApiVersion;
      this.#line(type, same ? json : JSON.stringify(inVersion(kind, object)));
      return;
    }
    const served = inVersion(kind, object);
    const { resourceVersion } = object.metadata;
    const value =
      form.as === 'table'
        ? tableOf(kind, [served], form, { resourceVersion }, this.#headers)
        : partialOf(served, form.apiVersion);
    this.#headers = false;
    this.#line(type, JSON.stringify(value));
  }

  #line(type: string, object: string): void {
    this.#response.write(`{"type":"${type}","object":${object}}\n`);
  }
}
