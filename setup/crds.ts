import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { ownDefinitions } from '../src/api/definitions.ts';

/** Where manifests for clusters that are set up by hand lie. */
export const definitionDirectory = join(import.meta.dirname, '../deploy/crds');

/** Myelin's own kinds as manifests: file name and content of each. */
export function definitionFiles(): ReadonlyMap<string, string> {
  const head = '# Made by setup/crds.ts out of src/api/kinds/myelin.ts: change it there.\n';
  return new Map(
    ownDefinitions().map((each) => [
      `${each.spec.names.plural}.yaml`,
      head + stringify(each, { lineWidth: 0, aliasDuplicateObjects: false }),
    ]),
  );
}

// test/api/own-kinds.test.ts fails where files and code differ: run this then.
if (import.meta.main)
  for (const [name, text] of definitionFiles()) writeFileSync(join(definitionDirectory, name), text);
