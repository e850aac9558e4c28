import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Inputs that nobody here wrote: `../shared` beside the repository, or wherever MYELIN_SHARED says. */
export const sharedRoot = process.env.MYELIN_SHARED ?? join(import.meta.dirname, '../../../shared');

/** A file under shared/cases. */
export function casePath(...parts: string[]): string {
  return join(sharedRoot, 'cases', ...parts);
}

export function readCase(...parts: string[]): string {
  return readFileSync(casePath(...parts), 'utf8');
}

/** Names of the files of a folder under shared/cases, sorted. */
export function listCases(...parts: string[]): string[] {
  return readdirSync(casePath(...parts)).sort();
}

/** One pod of the Kubernetes NetworkPolicy end-to-end suite. */
export interface E2ePod {
  readonly Namespace: string;
  readonly Name: string;
  readonly IP: string;
  readonly Labels: Readonly<Record<string, string>>;
  readonly Ports: readonly { readonly name?: string; readonly containerPort: number; readonly protocol: E2eProtocol }[];
}

export type E2eProtocol = 'TCP' | 'UDP' | 'SCTP';

export interface E2eStep {
  readonly Port: number;
  readonly Protocol: E2eProtocol;
  readonly Namespaces: readonly { readonly Name: string; readonly Labels: Readonly<Record<string, string>> }[];
  readonly Pods: readonly E2ePod[];
  /** NetworkPolicy objects as written. */
  readonly Policies: readonly unknown[] | null;
  /** Whether `from` reaches `to`, by "namespace/name" of both. A pod's traffic to itself is not judged. */
  readonly Expected: Readonly<Record<string, Readonly<Record<string, boolean>>>>;
}

export interface E2eCase {
  readonly Suite: string;
  readonly Name: string;
  readonly Steps: readonly E2eStep[];
}

/** The Kubernetes NetworkPolicy end-to-end suite as data (shared/cases/README.md). */
export function e2eCases(): readonly E2eCase[] {
  const cases: readonly E2eCase[] = JSON.parse(readCase('k8s-netpol-e2e.json'));
  return cases;
}
