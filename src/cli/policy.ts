import { type Command, Option } from 'commander';
import { clusterFlags } from './cluster.ts';
import { type CheckFlags, check } from './policy/check.ts';

export function registerPolicy(program: Command): void {
  const policy = program.command('policy').description('policies before they are applied');
  clusterFlags(
    policy
      .command('check')
      .description('what is wrong with policies of any kind, and what in them comes to nothing')
      .requiredOption(
        '-f, --file <path>',
        'a manifest, a directory, or - for standard input; may be repeated',
        collect,
        [],
      )
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
}

function collect(path: string, before: readonly string[]): string[] {
  return [...before, path];
}
