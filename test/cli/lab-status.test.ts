import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { formatLabStatus } from '../../src/cli/lab.ts';
import { labStatus } from '../../src/lab/status.ts';

const createdAt = '2026-01-01T00:00:00Z';

test('a lab whose API is gone says which of its processes ended, and what to do', () => {
  // Process 1 started at another time than this: the one that was recorded is not there.
  const gone = { name: 'api', pid: 1, startTime: 'never', log: '/run/x/api.log' };
  const state = {
    version: 1 as const,
    name: 'x',
    createdAt,
    complete: true,
    starter: { pid: 1, startTime: '' },
    nodes: 2,
    mtu: 1500,
    agents: {},
    mountedBpffs: false,
    processes: [gone],
  };
  const report = { ...labStatus(state, [], []), unreachable: 'the API server cannot be reached' };
  const text = stripVTControlCharacters(formatLabStatus(report, Date.parse(createdAt) + 5000));
  assert.deepEqual(text.split('\n'), [
    'x  up 5.0 s, no API',
    '',
    'the API server cannot be reached',
    'api is not running; it left its last words in /run/x/api.log',
    "what runs goes on; to have the rest again: 'myelin lab restart'",
  ]);
});
