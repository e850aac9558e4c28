import { readFileSync } from 'node:fs';
import { Command, InvalidArgumentError } from 'commander';
import { pino } from 'pino';
import { MyelinError } from '../../model/error.ts';
import { type Prefix, parsePrefix } from '../../model/prefix.ts';
import { startApiServer } from './server.ts';

interface Flags {
  readonly listen: { host: string; port: number };
  readonly data: string;
  readonly fsync: boolean;
  readonly tlsCert: string;
  readonly tlsKey: string;
  readonly clientCa: string;
  readonly serviceCidrs: readonly Prefix[];
  readonly logLevel: string;
}

const command = new Command('myelin-api')
  .description('The embedded Kubernetes API server: REST over SQLite, for labs and single machines.')
  .requiredOption('--listen <address:port>', 'where to serve HTTPS', parseListen)
  .requiredOption('--data <file>', 'the database; made where it is not there')
  .option('--no-fsync', 'do not wait for the disk, where nothing needs to outlive a crash of the machine')
  .requiredOption('--tls-cert <file>', 'the server’s certificate chain, PEM')
  .requiredOption('--tls-key <file>', 'its private key, PEM')
  .requiredOption('--client-ca <file>', 'the roots of client certificates, PEM')
  .option(
    '--service-cidrs <list>',
    'addresses for Services, one prefix of each family',
    parsePrefixes,
    parsePrefixes('10.96.0.0/16,fd00:10:96::/112'),
  )
  .option('--log-level <level>', 'trace, debug, info, warn, error', 'info')
  .action(run);

function parseListen(text: string): Flags['listen'] {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined) throw new InvalidArgumentError('must be address:port, such as 127.0.0.1:6443 or [::1]:6443');
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
  const logger = pino({ name: 'api', level: flags.logLevel }, pino.destination(2));
  const readTls = () => ({
    cert: readFileSync(flags.tlsCert, 'utf8'),
    key: readFileSync(flags.tlsKey, 'utf8'),
    clientCa: readFileSync(flags.clientCa, 'utf8'),
  });
  const server = await startApiServer(
    {
      listen: flags.listen,
      file: flags.data,
      fsync: flags.fsync,
      tls: readTls(),
      serviceCidrs: flags.serviceCidrs,
    },
    { logger },
  );
  logger.info({ url: server.url, data: flags.data }, 'serving');
  process.on('SIGHUP', () => {
    try {
      server.reloadTls(readTls());
      logger.info('certificates read again');
    } catch (error) {
      logger.error({ err: error }, 'certificates could not be read; the old ones stay');
    }
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void server.close());
}

try {
  await command.parseAsync();
} catch (error) {
  if (!(error instanceof Error)) throw error;
  process.stderr.write(`myelin-api: ${error.message}\n`);
  process.exitCode = 1;
}
