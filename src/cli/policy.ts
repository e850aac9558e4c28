import { type Command, Option } from 'commander';
import { clusterFlags } from './cluster.ts';
import { type CheckFlags, check } from './policy/check.ts';
import { type DiffFlags, diffPolicies } from './policy/diff.ts';
import { type SuggestFlags, suggestPolicies } from './policy/suggest.ts';

export function registerPolicy(program: Command): void {
  const policy = program.command('policy').description('policies before they are applied, and out of what was seen');
  clusterFlags(
    policy
      .command('check')
      .description('what is wrong with policies of any kind, and what in them comes to nothing')
      .requiredOption('-f, --file <path>', 'a manifest, a directory, or - for standard input; may be repeated', collect)
      .option('-n, --namespace <name>', 'for manifests that name none', 'default')
      .option('--files-only', 'hold them against the pods of the files only, whatever cluster there is')
      .addOption(new Option('-o, --output <form>').choices(['table', 'json']).default('table')),
  )
    .addHelpText(
      'after',
      `
Kinds: NetworkPolicy, ClusterNetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and bare lists of Cilium's
rules, AuthorizationPolicy, PeerAuthentication. With --lab or --kubeconfig the policies are held against that cluster's
pods and policies; else against the workloads and namespaces that stand beside them in the files.

Found are fields that are not understood (error); and as warnings: fields that are not enforced as written, selectors
that match nothing, ports that no pod has, rules that another rule leaves nothing to decide.
Exits with 0 where nothing is found, 1 for errors, 2 for warnings only.

Examples:
  myelin policy check -f policies/
  myelin policy check -f shop.yaml -f policies/ -o json
  myelin policy check -f new.yaml --lab demo`,
    )
    .action((flags: CheckFlags) => check(flags));
  registerSuggest(policy);
  registerDiff(policy);
}

/** Which recorded flows a command is about. */
function flowFlags(command: Command): Command {
  return clusterFlags(command)
    .option(
      '--flows <file>',
      'flows as myelin observe -o json prints them, - for standard input (default: the agents’)',
    )
    .option('--last <n>', 'how many flows to ask each agent for', '50000')
    .option('--run-dir <dir>', 'the run directory of the agent to ask')
    .option('--node <name>', 'only the agent of this node');
}

function registerSuggest(policy: Command): void {
  flowFlags(policy.command('suggest').description('the least NetworkPolicies under which what was seen goes on'))
    .option('-f, --file <path>', 'workloads whose labels to use in place of a cluster’s; may be repeated', collect, [])
    .option('-n, --namespace <name>', 'only policies for pods of this namespace')
    .addOption(new Option('--direction <name>', 'only this direction').choices(['ingress', 'egress']))
    .option('--denied', 'connections that were denied are wanted too')
    .addOption(new Option('-o, --output <form>').choices(['yaml', 'json']).default('yaml'))
    .addHelpText(
      'after',
      `
One policy for each workload that took part, known by the fewest labels; each rule under the connections it is for.
What is in no rule is said on standard error.

Examples:
  myelin policy suggest -n shop > shop-policies.yaml
  myelin observe -o json --last 50000 > flows.ndjson; myelin policy suggest --flows flows.ndjson -f shop.yaml`,
    )
    .action((flags: SuggestFlags) => suggestPolicies(flags));
}

function registerDiff(policy: Command): void {
  flowFlags(policy.command('diff').description('which recorded connections changed policies would decide otherwise'))
    .option('-f, --file <path>', 'policies to be applied, of any kind; may be repeated', collect, [])
    .option('--remove <policy>', 'one to be deleted: "NetworkPolicy shop/web"; may be repeated', collect, [])
    .option('--audited', 'as if the policies that are only audited were enforced')
    .option('-n, --namespace <name>', 'for manifests that name none', 'default')
    .addOption(new Option('-o, --output <form>').choices(['table', 'json']).default('table'))
    .addHelpText(
      'after',
      `
The cluster's pods and policies are asked of its API; nothing is applied. Exits with 0 where nothing changes, 2 where
something does.

Examples:
  myelin policy diff -f policies/
  myelin policy diff --remove 'NetworkPolicy shop/web' -o json
  myelin policy diff --audited`,
    )
    .action((flags: DiffFlags) => diffPolicies(flags));
}

function collect(path: string, before: readonly string[] = []): string[] {
  return [...before, path];
}
