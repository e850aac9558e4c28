import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringOr } from '../../src/api/json.ts';
import { policyResources } from '../../src/api/kinds.ts';
import { type Agents, agentsOf } from './agents.ts';
import { type CliResult, myelin } from './cli.ts';
import { type Source, TestLab, type TestPod } from './lab.ts';

/** What a lab's node is called as the source of a probe, what `why` calls it. */
function nameOf(end: Source): string {
  return typeof end === 'string' ? end : `${end.namespace}/${end.name}`;
}

/** A lab in which policies are applied by kubectl and held against packets. */
export class PolicyLab {
  readonly lab: TestLab;
  readonly agents: Agents;
  readonly #file: string;

  private constructor(lab: TestLab) {
    this.lab = lab;
    this.agents = agentsOf(lab);
    this.#file = join(tmpdir(), `myelin-policy-${lab.name}.yaml`);
  }

  static async up(options: Parameters<typeof TestLab.up>[0] = {}): Promise<PolicyLab> {
    return new PolicyLab(await TestLab.up(options));
  }

  async down(): Promise<void> {
    rmSync(this.#file, { force: true });
    await this.lab.down();
  }

  async kubectl(...args: readonly string[]): Promise<CliResult> {
    const result = await myelin('lab', 'kubectl', '--name', this.lab.name, '--', ...args);
    assert.equal(result.code, 0, result.stderr);
    return result;
  }

  /** @param text YAML. */
  async apply(text: string): Promise<CliResult> {
    writeFileSync(this.#file, text);
    return await this.kubectl('apply', '-f', this.#file);
  }

  /**
   * Waits until all nodes agree on the verdict, and then looks at packets of both families.
   * @param from A pod, or `world`.
   */
  async verdict(from: Source, to: TestPod, port: number, verdict: 'allow' | 'deny'): Promise<void> {
    const question = { source: nameOf(from), destination: nameOf(to), protocol: 'TCP', port } as const;
    assert.equal(
      await this.agents.settled(question, verdict, 20_000),
      undefined,
      `${nameOf(from)} → ${nameOf(to)} ${port}`,
    );
    await this.packets(from, to, port, verdict);
  }

  /** Looks at packets alone. */
  async packets(from: Source, to: TestPod, port: number, verdict: 'allow' | 'deny'): Promise<void> {
    const look = (family: 4 | 6) =>
      this.lab.eventually(async () =>
        assert.equal(
          await this.lab.reaches(from, to, { port, family }),
          verdict === 'allow',
          `${nameOf(from)} → ${nameOf(to)} ${port} over IPv${family}: ${verdict} was expected`,
        ),
      );
    await Promise.all([look(4), look(6)]);
  }

  /** What `myelin why` prints. */
  async why(from: Source, to: TestPod, port: number): Promise<string> {
    const { stdout } = await myelin('why', nameOf(from), nameOf(to), '--port', String(port), '--lab', this.lab.name);
    return stdout;
  }

  /** Waits for a condition of a policy's status to be false, with a message like this. */
  async condition(kind: string, name: string, type: string, message: RegExp, namespace?: string): Promise<void> {
    const resource = policyResources.find((own) => own.kind === kind);
    assert.ok(resource !== undefined, kind);
    await this.lab.eventually(
      async () => {
        const { status } = await this.lab.api.get(resource, namespace === undefined ? { name } : { namespace, name });
        const condition = status?.conditions?.find((own) => own.type === type);
        assert.equal(condition?.status, 'False', JSON.stringify(status));
        assert.match(stringOr(condition?.message, ''), message);
      },
      { timeoutMs: 20_000 },
    );
  }
}
