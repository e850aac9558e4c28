import { readFileSync } from 'node:fs';
import { Command, InvalidArgumentError } from 'commander';
import { pino } from 'pino';
import { ApiClient } from '../api/client/client.ts';
import { readKubeconfig } from '../api/client/kubeconfig.ts';
import { MyelinError } from '../model/error.ts';
import { type Prefix, parsePrefix } from '../model/prefix.ts';
import { Controller } from './controller.ts';

interface Flags {
  readonly listen: { host: string; port: number };
  readonly kubeconfig: string;
  readonly caDir: string;
  readonly tlsCert: string;
  readonly tlsKey: string;
  readonly trustDomain: string;
  readonly podCidrs: readonly Prefix[];
  readonly rootOverlapSeconds: number;
  readonly logLevel: string;
}

const command = new Command('myelin-controller')
  .description('The cluster’s certificate authority, and the nodes’ pod CIDRs.')
  .requiredOption('--listen <address:port>', 'where to serve HTTPS', parseListen)
  .requiredOption('--kubeconfig <file>', 'how to reach the API')
  .requiredOption('--ca-dir <directory>', 'the CA’s roots and keys, 0700; a new CA is made in an empty one')
  .requiredOption('--tls-cert <file>', 'this server’s certificate chain, PEM')
  .requiredOption('--tls-key <file>', 'its private key, PEM')
  .option('--trust-domain <name>', 'the SPIFFE trust domain', 'cluster.local')
  .option(
    '--pod-cidrs <list>',
    'what nodes get their pod CIDRs out of, one prefix of each family: /24 and /64 each',
    parsePrefixes,
    parsePrefixes('10.244.0.0/16,fd00:10:244::/56'),
  )
  .option('--root-overlap-seconds <n>', 'how long a new root is published before it signs', Number, 600)
  .option('--log-level <level>', 'trace, debug, info, warn, error', 'info')
  .action(run);

function parseListen(text: string): Flags['listen'] {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined) throw new InvalidArgumentError('must be address:port, such as 127.0.0.1:7443 or [::1]:7443');
  return { host, port: Number(match?.[3]) };
}

function parsePrefixes(text: string): readonly Prefix[] {
  try {
    return text.split(',').map(parsePrefix);
  } catch (error) {
    if (error instanceof MyelinError) throw new InvalidArgumentError(error.message);
    throw error;
  }
}

async function run(flags: Flags): Promise<void> {
  const logger = pino({ name: 'controller', level: flags.logLevel }, pino.destination(2));
  const api = new ApiClient(readKubeconfig(flags.kubeconfig));
  const controller = await Controller.start(
    {
      listen: flags.listen,
      trustDomain: flags.trustDomain,
      caDirectory: flags.caDir,
      podCidrs: flags.podCidrs,
      rootOverlapMs: flags.rootOverlapSeconds * 1000,
    },
    {
      api,
      credentials: { cert: readFileSync(flags.tlsCert, 'utf8'), key: readFileSync(flags.tlsKey, 'utf8') },
      logger,
    },
  );
  logger.info({ ...flags.listen, port: controller.port, trustDomain: flags.trustDomain }, 'serving');
  const stop = async () => {
    await controller.close();
    api.close();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void stop());
}

try {
  await command.parseAsync();
} catch (error) {
  if (!(error instanceof Error)) throw error;
  process.stderr.write(`myelin-controller: ${error.message}\n`);
  process.exitCode = 1;
}
