import { tryParseIp } from '../../../model/address.ts';
import type { FieldIssue } from '../../issue.ts';
import type { Container, PodSpec, Probe } from '../../kinds.ts';
import { duplicateValue, invalidValue, requiredValue } from '../../validate.ts';
import {
  checkLabels,
  checkName,
  checkPort,
  checkPortNumber,
  checkUnique,
  dnsLabel,
  dnsSubdomain,
  type NameRule,
  portName,
} from './names.ts';

const envName: NameRule = (text) =>
  /^[^=\p{C}]+$/u.test(text)
    ? undefined
    : "a valid environment variable name must consist of printable characters other than '='";

/** Checks a pod's spec, wherever it stands. @param at `spec`, or `spec.template.spec`. */
export function checkPodSpec(at: string, spec: PodSpec): FieldIssue[] {
  const lists = ['initContainers', 'containers', 'ephemeralContainers'] as const;
  const volumes = new Set((spec.volumes ?? []).map(({ name }) => name));
  const issues = [
    ...(spec.volumes ?? []).flatMap(({ name }, i) => checkName(`${at}.volumes[${i}].name`, name, dnsLabel)),
    ...checkUnique(`${at}.volumes`, spec.volumes, ({ name }) => name, '.name'),
    ...checkLabels(`${at}.nodeSelector`, spec.nodeSelector),
  ];
  const names = new Set<string>();
  for (const list of lists)
    for (const [i, container] of (spec[list] ?? []).entries()) {
      const place = `${at}.${list}[${i}]`;
      if (names.has(container.name)) issues.push(duplicateValue(`${place}.name`, container.name));
      names.add(container.name);
      issues.push(...checkContainer(place, container, volumes, spec.hostNetwork === true));
    }
  if (spec.serviceAccountName)
    issues.push(...checkName(`${at}.serviceAccountName`, spec.serviceAccountName, dnsSubdomain));
  if (spec.nodeName) issues.push(...checkName(`${at}.nodeName`, spec.nodeName, dnsSubdomain));
  if (spec.hostname) issues.push(...checkName(`${at}.hostname`, spec.hostname, dnsLabel));
  if (spec.subdomain) issues.push(...checkName(`${at}.subdomain`, spec.subdomain, dnsLabel));
  if (spec.dnsPolicy === 'None' && (spec.dnsConfig?.nameservers ?? []).length === 0)
    issues.push(
      requiredValue(
        `${at}.dnsConfig.nameservers`,
        "must provide at least one DNS nameserver when `dnsPolicy` is 'None'",
      ),
    );
  for (const [i, { ip }] of (spec.hostAliases ?? []).entries())
    if (tryParseIp(ip) === undefined)
      issues.push(invalidValue(`${at}.hostAliases[${i}].ip`, ip, 'must be a valid IP address'));
  return issues;
}

function checkContainer(
  at: string,
  container: Container,
  volumes: ReadonlySet<string>,
  hostNetwork: boolean,
): FieldIssue[] {
  const issues = checkName(`${at}.name`, container.name, dnsLabel);
  if (!container.image) issues.push(requiredValue(`${at}.image`));
  for (const [i, port] of (container.ports ?? []).entries()) {
    const place = `${at}.ports[${i}]`;
    issues.push(...checkPortNumber(`${place}.containerPort`, port.containerPort));
    if (port.name !== undefined) issues.push(...checkName(`${place}.name`, port.name, portName));
    if (port.hostPort) issues.push(...checkPortNumber(`${place}.hostPort`, port.hostPort));
    if (hostNetwork && port.hostPort !== undefined && port.hostPort !== port.containerPort)
      issues.push(
        invalidValue(`${place}.hostPort`, port.hostPort, 'must match `containerPort` when `hostNetwork` is true'),
      );
  }
  issues.push(...checkUnique(`${at}.ports`, container.ports, ({ name }) => name, '.name'));
  for (const [i, { name, value, valueFrom }] of (container.env ?? []).entries()) {
    issues.push(...checkName(`${at}.env[${i}].name`, name, envName));
    if (value && valueFrom !== undefined)
      issues.push(invalidValue(`${at}.env[${i}].valueFrom`, '', 'may not be specified when `value` is not empty'));
    if (valueFrom !== undefined && Object.keys(valueFrom).length !== 1)
      issues.push(invalidValue(`${at}.env[${i}].valueFrom`, '', 'must specify exactly one source'));
  }
  for (const [i, { name, mountPath }] of (container.volumeMounts ?? []).entries()) {
    if (!volumes.has(name))
      issues.push({
        field: `${at}.volumeMounts[${i}].name`,
        reason: 'FieldValueNotFound',
        message: `Not found: ${JSON.stringify(name)}`,
      });
    if (mountPath === '') issues.push(requiredValue(`${at}.volumeMounts[${i}].mountPath`));
  }
  issues.push(...checkUnique(`${at}.volumeMounts`, container.volumeMounts, ({ mountPath }) => mountPath, '.mountPath'));
  for (const name of ['livenessProbe', 'readinessProbe', 'startupProbe'] as const) {
    const probe = container[name];
    if (probe !== undefined) issues.push(...checkProbe(`${at}.${name}`, probe, name !== 'readinessProbe'));
  }
  return issues;
}

function checkProbe(at: string, probe: Probe, onceOnly: boolean): FieldIssue[] {
  const handlers = [probe.exec, probe.httpGet, probe.tcpSocket, probe.grpc].filter((handler) => handler !== undefined);
  const issues: FieldIssue[] = [];
  if (handlers.length === 0) issues.push(requiredValue(at, 'must specify a handler type'));
  if (handlers.length > 1)
    issues.push({
      field: at,
      reason: 'FieldValueForbidden',
      message: 'Forbidden: may not specify more than 1 handler type',
    });
  if (probe.httpGet !== undefined) issues.push(...checkPort(`${at}.httpGet.port`, probe.httpGet.port));
  if (probe.tcpSocket !== undefined) issues.push(...checkPort(`${at}.tcpSocket.port`, probe.tcpSocket.port));
  if (probe.grpc !== undefined) issues.push(...checkPortNumber(`${at}.grpc.port`, probe.grpc.port));
  for (const field of ['initialDelaySeconds', 'timeoutSeconds', 'periodSeconds', 'failureThreshold'] as const) {
    const value = probe[field] ?? 0;
    if (value < 0) issues.push(invalidValue(`${at}.${field}`, value, 'must be greater than or equal to 0'));
  }
  if (onceOnly && (probe.successThreshold ?? 1) !== 1)
    issues.push(invalidValue(`${at}.successThreshold`, probe.successThreshold, 'must be 1'));
  return issues;
}
