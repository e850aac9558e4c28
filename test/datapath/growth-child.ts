import { Datapath } from '../../src/datapath/datapath.ts';
import { apply, makeKnown, smallest } from './growth-node.ts';

/*
 * An agent that dies while maps grow: growth-child.ts PINS FROM TO STEP. From a cluster of FROM pods to one of TO; dies
 * after so many steps. Says each step that it took.
 */
const [, , pinDir = '', from = '', to = '', fatal = ''] = process.argv;
let taken = 0;
let counting = false;
const datapath = Datapath.open(
  { ...smallest, pinDir },
  {
    onGrowth: (step) => {
      if (!counting) return;
      process.stdout.write(`${step}\n`);
      if (++taken === Number(fatal)) process.kill(process.pid, 'SIGKILL');
    },
  },
);
await makeKnown(datapath);
await apply(datapath, Number(from));
counting = true;
await apply(datapath, Number(to));
await datapath.close();
