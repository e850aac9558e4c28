import { tryParseIp } from '../../../model/address.ts';
import type { FieldIssue } from '../../issue.ts';
import { kinds, type ServicePort } from '../../kinds.ts';
import { duplicateValue, invalidValue, requiredValue } from '../../validate.ts';
import {
  checkLabels,
  checkName,
  checkPort,
  checkPortNumber,
  checkUnique,
  dnsLabel,
  dnsLabel1035,
  dnsSubdomain,
} from './names.ts';
import { rulesFor } from './rules.ts';
import { assignAddresses, carryOverAddresses, type ServiceSpec } from './service-assign.ts';

/** Defaults and checks follow Kubernetes' pkg/apis/core and pkg/registry/core/service. */
export const serviceRules = rulesFor(kinds.Service, {
  name: dnsLabel1035,
  prepareUpdate: (next, old) => carryOverAddresses(next, old),
  defaults: (service) => {
    service.spec ??= {};
    setDefaults(service.spec);
    service.status ??= { loadBalancer: {} };
  },
  validate: ({ spec = {} }) => checkSpec(spec),
  admit: (next, old, world) => assignAddresses(next, old, world),
});

function setDefaults(spec: ServiceSpec): void {
  spec.type ??= 'ClusterIP';
  spec.sessionAffinity ??= 'None';
  if (spec.type !== 'ExternalName') spec.internalTrafficPolicy ??= 'Cluster';
  if (spec.type === 'NodePort' || spec.type === 'LoadBalancer') spec.externalTrafficPolicy ??= 'Cluster';
  if (spec.type === 'LoadBalancer') spec.allocateLoadBalancerNodePorts ??= true;
  if (spec.sessionAffinity === 'ClientIP') spec.sessionAffinityConfig ??= { clientIP: { timeoutSeconds: 10800 } };
  for (const port of spec.ports ?? []) {
    port.protocol ??= 'TCP';
    if (port.targetPort === undefined || port.targetPort === '' || port.targetPort === 0) port.targetPort = port.port;
  }
}

function checkSpec(spec: ServiceSpec): FieldIssue[] {
  const issues = [...checkPorts(spec), ...checkLabels('spec.selector', spec.selector), ...checkAddresses(spec)];
  if (spec.type === 'ExternalName') {
    issues.push(...checkName('spec.externalName', spec.externalName, dnsSubdomain));
    if (spec.clusterIP !== undefined && spec.clusterIP !== '')
      issues.push({
        field: 'spec.clusterIPs[0]',
        reason: 'FieldValueForbidden',
        message: 'Forbidden: may not be set for ExternalName services',
      });
  }
  if (spec.clusterIP === 'None' && (spec.type === 'NodePort' || spec.type === 'LoadBalancer'))
    issues.push(invalidValue('spec.clusterIPs[0]', 'None', `may not be set to 'None' for ${spec.type} services`));
  for (const [i, ip] of (spec.externalIPs ?? []).entries())
    if (tryParseIp(ip) === undefined)
      issues.push(invalidValue(`spec.externalIPs[${i}]`, ip, 'must be a valid IP address'));
  return issues;
}

function checkPorts(spec: ServiceSpec): FieldIssue[] {
  const ports = spec.ports ?? [];
  if (ports.length === 0 && spec.clusterIP !== 'None' && spec.type !== 'ExternalName')
    return [requiredValue('spec.ports')];
  const issues = ports.flatMap((port, i) => checkServicePort(`spec.ports[${i}]`, port, ports.length > 1));
  issues.push(...checkUnique('spec.ports', ports, ({ name }) => name, '.name'));
  issues.push(...checkUnique('spec.ports', ports, ({ port, protocol = 'TCP' }) => `${port}/${protocol}`));
  return issues;
}

function checkServicePort(at: string, port: ServicePort, needsName: boolean): FieldIssue[] {
  const issues = checkPortNumber(`${at}.port`, port.port);
  if (needsName || (port.name !== undefined && port.name !== ''))
    issues.push(...checkName(`${at}.name`, port.name, dnsLabel));
  if (port.targetPort !== undefined) issues.push(...checkPort(`${at}.targetPort`, port.targetPort));
  if (port.nodePort !== undefined && port.nodePort !== 0)
    issues.push(...checkPortNumber(`${at}.nodePort`, port.nodePort));
  return issues;
}

function checkAddresses({ clusterIP = '', clusterIPs = [], ipFamilies = [] }: ServiceSpec): FieldIssue[] {
  const issues: FieldIssue[] = [];
  if (clusterIPs.length > 2) issues.push(invalidValue('spec.clusterIPs', clusterIPs, 'may only hold up to 2 values'));
  if (ipFamilies.length > 2) issues.push(invalidValue('spec.ipFamilies', ipFamilies, 'may only hold up to 2 values'));
  if (ipFamilies.length === 2 && ipFamilies[0] === ipFamilies[1])
    issues.push(duplicateValue('spec.ipFamilies[1]', ipFamilies[1]));
  if (clusterIPs.length > 0 && clusterIP !== '' && clusterIPs[0] !== clusterIP)
    issues.push(invalidValue('spec.clusterIPs', clusterIPs, 'first value must match `clusterIP`'));
  const asked = clusterIPs.length > 0 ? clusterIPs : clusterIP === '' ? [] : [clusterIP];
  if (asked.length > 1 && asked.includes('None'))
    issues.push(invalidValue('spec.clusterIPs', asked, "'None' must be the first and only value"));
  for (const [i, ip] of asked.entries())
    if (ip !== 'None' && tryParseIp(ip) === undefined)
      issues.push(invalidValue(`spec.clusterIPs[${i}]`, ip, 'must be a valid IP address'));
  return issues;
}
