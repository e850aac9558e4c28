import type { PodRef } from '../../model/endpoint.ts';
import { defaultSocket } from '../wire.ts';
import { CniError } from './error.ts';
import { type CniCommand, type CniVersion, negotiate } from './version.ts';

/** What travels from the plugin to the agent: the environment as it was, and standard input decoded as JSON. */
export interface RawRequest {
  readonly command: string;
  readonly containerId: string;
  readonly netns: string;
  readonly ifName: string;
  readonly args: string;
  readonly path: string;
  readonly config: unknown;
}

export interface Attachment {
  readonly containerId: string;
  readonly ifName: string;
}

/** The plugin configuration, checked. */
export interface NetworkConfig {
  readonly cniVersion: CniVersion;
  /** The network's name: GC speaks of one network at a time. */
  readonly name: string;
  /** The agent's socket. */
  readonly socket: string;
  /** As the runtime gave it; its form depends on the version. */
  readonly prevResult?: Readonly<Record<string, unknown>>;
  readonly dns?: Readonly<Record<string, unknown>>;
  /** Only with GC. */
  readonly validAttachments?: readonly Attachment[];
}

export interface CniRequest extends Attachment {
  readonly command: Exclude<CniCommand, 'VERSION'>;
  /** Empty where the runtime gave none, which DEL allows. */
  readonly netns: string;
  /** From CNI_ARGS; absent where the runtime is not a Kubernetes one. */
  readonly pod?: PodRef;
  readonly config: NetworkConfig;
}

const commands = new Set<CniCommand>(['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION']);
/** A sockaddr_un has 108 bytes with the closing zero. */
const maxSocketPath = 107;
/** What a configuration may say. `dns` goes into the result; the rest below is the runtime's and not acted upon. */
const knownFields = new Set(
  'cniVersion cniVersions name type socket dns prevResult args capabilities runtimeConfig disableCheck disableGC'.split(
    ' ',
  ),
);

/** @throws {CniError} `InvalidEnvironment` */
function parseCommand(text: string): CniCommand {
  for (const command of commands) if (command === text) return command;
  throw text === ''
    ? new CniError('InvalidEnvironment', 'required env variables [CNI_COMMAND] missing')
    : invalid('CNI_COMMAND', text, `one of ${[...commands].join(', ')}`);
}

/**
 * Checks a request by the spec: first the environment, then the configuration. DEL and GC tolerate whatever does not
 * stop them, because nothing else would ever clean up.
 * @throws {CniError} with the spec's code.
 */
export function parseRequest(raw: RawRequest): CniRequest {
  const command = parseCommand(raw.command);
  if (command === 'VERSION') throw invalid('CNI_COMMAND', command, 'a command for the agent');
  const perContainer = command === 'ADD' || command === 'DEL' || command === 'CHECK';
  if (perContainer) checkEnvironment(raw, command);
  const config = parseConfig(raw.config, command);
  if (!perContainer) return { command, containerId: '', ifName: '', netns: '', config };
  const pod = podOf(raw.args, command);
  const { containerId, ifName, netns } = raw;
  return { command, containerId, ifName, netns, config, ...(pod !== undefined && { pod }) };
}

function invalid(variable: string, value: string, expected: string): CniError {
  const shown = JSON.stringify(value.slice(0, 200));
  return new CniError('InvalidEnvironment', `invalid ${variable}`, `${variable} is ${shown}, expected ${expected}`);
}

function checkEnvironment(raw: RawRequest, command: CniCommand): void {
  const required: [string, string][] = [
    ['CNI_CONTAINERID', raw.containerId],
    ['CNI_IFNAME', raw.ifName],
  ];
  if (command !== 'DEL') required.push(['CNI_NETNS', raw.netns]);
  const missing = required.filter(([, value]) => value === '').map(([name]) => name);
  if (missing.length > 0)
    throw new CniError('InvalidEnvironment', `required env variables [${missing.join(',')}] missing`);
  if (!isName(raw.containerId))
    throw invalid('CNI_CONTAINERID', raw.containerId, 'an alphanumeric and then alphanumerics, "_", "." or "-"');
  if (!isInterfaceName(raw.ifName))
    throw invalid('CNI_IFNAME', raw.ifName, 'at most 15 characters, no "/", ":" or space, not "." or ".."');
  if (command !== 'DEL' && !isPath(raw.netns)) throw invalid('CNI_NETNS', raw.netns, 'an absolute path');
}

/** The spec's grammar of container IDs, which the reference library uses for network names too. */
function isName(text: string): boolean {
  return text.length <= 253 && /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(text);
}

/** The kernel's dev_valid_name(), and no "%": the kernel would make a pattern of it. */
function isInterfaceName(text: string): boolean {
  return (
    Buffer.byteLength(text) <= 15 && text !== '.' && text !== '..' && /^[\x21-\x7e]+$/.test(text) && !/[/:%]/.test(text)
  );
}

function isPath(text: string): boolean {
  return text.startsWith('/') && text.length <= 4096 && !text.includes('\0');
}

/** @throws {CniError} `InvalidEnvironment` where CNI_ARGS half-names a pod; DEL takes that for no pod. */
function podOf(args: string, command: CniCommand): PodRef | undefined {
  try {
    return parsePod(args);
  } catch (error) {
    if (command === 'DEL') return undefined;
    throw error;
  }
}

function parsePod(args: string): PodRef | undefined {
  if (args.length > 8192) throw invalid('CNI_ARGS', args, 'at most 8192 characters');
  const values = new Map<string, string>();
  for (const pair of args.split(';').filter((part) => part !== '')) {
    const equals = pair.indexOf('=');
    if (equals < 1) throw invalid('CNI_ARGS', args, 'KEY=VALUE pairs separated by ";"');
    values.set(pair.slice(0, equals), pair.slice(equals + 1));
  }
  const part = (key: string, grammar: RegExp): string => {
    const value = values.get(key) ?? '';
    // A pod without its UID would be a name that can come back: stickiness and identity need the UID.
    if (!grammar.test(value)) throw invalid('CNI_ARGS', args, `a valid ${key} with every K8S_POD_ variable`);
    return value;
  };
  if (!values.has('K8S_POD_NAMESPACE') && !values.has('K8S_POD_NAME')) return undefined;
  return {
    namespace: part('K8S_POD_NAMESPACE', /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/),
    name: part('K8S_POD_NAME', /^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$/),
    uid: part('K8S_POD_UID', /^[a-zA-Z0-9][-a-zA-Z0-9._]{0,127}$/),
  };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @throws {CniError} `DecodingFailure`, `InvalidNetworkConfig`, `IncompatibleVersion`, `UnsupportedField` */
function parseConfig(config: unknown, command: CniCommand): NetworkConfig {
  if (!isObject(config))
    throw new CniError('DecodingFailure', 'failed to decode the network configuration', 'expected a JSON object');
  const { name, socket, prevResult, dns } = config;
  const cniVersion = negotiate(config.cniVersion, command);
  if (name === undefined || name === '') throw badConfig('missing network name', '');
  if (typeof name !== 'string' || !isName(name)) throw badConfig('invalid network name', show(name));
  if (
    socket !== undefined &&
    !(typeof socket === 'string' && isPath(socket) && Buffer.byteLength(socket) <= maxSocketPath)
  )
    throw badConfig('invalid socket', `${show(socket)}, expected an absolute path of at most ${maxSocketPath} bytes`);
  const cleansUp = command === 'DEL' || command === 'GC';
  if (!cleansUp) refuseUnsupported(config);
  if (prevResult !== undefined && prevResult !== null && !isObject(prevResult) && !cleansUp)
    throw badConfig('invalid prevResult', 'expected an object');
  if (dns !== undefined && !isObject(dns) && !cleansUp) throw badConfig('invalid dns', 'expected an object');
  return {
    cniVersion,
    name,
    socket: socket ?? defaultSocket,
    ...(isObject(prevResult) && { prevResult }),
    ...(isObject(dns) && { dns }),
    ...(command === 'GC' && { validAttachments: parseAttachments(config) }),
  };
}

/** A field that would be ignored silently is refused: it asks for something that would not happen. */
function refuseUnsupported(config: Readonly<Record<string, unknown>>): void {
  const refuse = (key: string, value: unknown) => {
    const text = `${key}: ${show(value)}`;
    throw new CniError('UnsupportedField', `unsupported field in network configuration: ${text}`);
  };
  for (const [key, value] of Object.entries(config))
    if (!knownFields.has(key) && !key.startsWith('cni.dev/') && !isEmpty(value)) refuse(key, value);
  const { runtimeConfig } = config;
  if (!isObject(runtimeConfig)) return;
  for (const [key, value] of Object.entries(runtimeConfig)) if (!isEmpty(value)) refuse(`runtimeConfig.${key}`, value);
}

/** Whether a field asks for nothing, and so may stand anywhere. */
function isEmpty(value: unknown): boolean {
  return value === null || value === false || (typeof value === 'object' && Object.keys(value).length === 0);
}

/**
 * @throws {CniError} `InvalidNetworkConfig` where the list is absent: to take that for "none is valid" would remove
 * every pod's network. `null` is how Go writes the empty list.
 */
function parseAttachments(config: Readonly<Record<string, unknown>>): Attachment[] {
  // The reference library sends both: the spec's text and its code once differed (containernetworking/cni#1101).
  const list = config['cni.dev/valid-attachments'] ?? config['cni.dev/attachments'];
  if (list === undefined && !('cni.dev/valid-attachments' in config))
    throw badConfig('missing cni.dev/valid-attachments', 'GC needs the list of attachments that are still valid');
  if (list === undefined || list === null) return [];
  if (!Array.isArray(list)) throw badConfig('invalid cni.dev/valid-attachments', 'expected a list');
  return list.map((item: unknown) => {
    const { containerID, ifname } = isObject(item) ? item : {};
    if (typeof containerID !== 'string' || typeof ifname !== 'string')
      throw badConfig('invalid cni.dev/valid-attachments', `${show(item)} lacks containerID or ifname`);
    return { containerId: containerID, ifName: ifname };
  });
}

function badConfig(msg: string, details: string): CniError {
  return new CniError('InvalidNetworkConfig', msg, details);
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? 'undefined').slice(0, 200);
}
