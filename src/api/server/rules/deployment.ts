import { isDeepStrictEqual } from 'node:util';
import { selects } from '../../../model/labels.ts';
import type { FieldIssue } from '../../issue.ts';
import { type Deployment, kinds } from '../../kinds.ts';
import { invalidValue, requiredValue, unsupportedValue } from '../../validate.ts';
import { checkLabels } from './names.ts';
import { checkPodSpec } from './pod-checks.ts';
import { setPodDefaults } from './pod-defaults.ts';
import { rulesFor } from './rules.ts';
import { checkSelector } from './selectors.ts';

export const deploymentRules = rulesFor(kinds.Deployment, {
  prepareCreate: (deployment) => {
    deployment.status = {};
  },
  defaults: ({ spec }) => {
    spec.replicas ??= 1;
    spec.revisionHistoryLimit ??= 10;
    spec.progressDeadlineSeconds ??= 600;
    spec.strategy ??= {};
    spec.strategy.type ??= 'RollingUpdate';
    if (spec.strategy.type === 'RollingUpdate')
      spec.strategy.rollingUpdate = { maxUnavailable: '25%', maxSurge: '25%', ...spec.strategy.rollingUpdate };
    setPodDefaults(spec.template.spec);
  },
  validate: ({ spec }) => checkSpec(spec),
  validateUpdate: (next, old) =>
    isDeepStrictEqual(next.spec.selector, old.spec.selector)
      ? []
      : [invalidValue('spec.selector', next.spec.selector, 'field is immutable')],
});

function checkSpec({ selector, template, strategy }: Deployment['spec']): FieldIssue[] {
  const labels = template.metadata?.labels ?? {};
  const issues = [
    ...checkSelector('spec.selector', selector),
    ...checkLabels('spec.template.metadata.labels', labels),
    ...checkPodSpec('spec.template.spec', template.spec),
  ];
  const { matchLabels = {}, matchExpressions = [] } = selector;
  if (Object.keys(matchLabels).length === 0 && matchExpressions.length === 0)
    issues.push(requiredValue('spec.selector', 'empty selector is invalid for deployment'));
  else if (
    !selects(
      { matchLabels, matchExpressions: matchExpressions.map(({ values = [], ...rest }) => ({ ...rest, values })) },
      labels,
    )
  )
    issues.push(invalidValue('spec.template.metadata.labels', labels, '`selector` does not match template `labels`'));
  if (template.spec.restartPolicy !== 'Always')
    issues.push(unsupportedValue('spec.template.spec.restartPolicy', template.spec.restartPolicy, ['Always']));
  if (strategy?.type === 'Recreate' && strategy.rollingUpdate !== undefined)
    issues.push({
      field: 'spec.strategy.rollingUpdate',
      reason: 'FieldValueForbidden',
      message: "Forbidden: may not be specified when strategy `type` is 'Recreate'",
    });
  return issues;
}
