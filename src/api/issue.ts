/** Why a field was not accepted, in the API's own words (`metav1.CauseType`). */
export type FieldIssueReason =
  | 'FieldValueInvalid'
  | 'FieldValueRequired'
  | 'FieldValueNotSupported'
  | 'FieldValueDuplicate'
  | 'FieldValueForbidden'
  | 'FieldValueTypeInvalid'
  | 'FieldValueTooLong'
  | 'FieldValueTooMany'
  | 'FieldValueNotFound'
  /** Not one of Kubernetes' causes: a field that the kind does not have. */
  | 'FieldUnknown';

/** One thing that is wrong with an object, and where. */
export interface FieldIssue {
  /** As Kubernetes writes it: `spec.ingress[0].ports[1].endPort`. Empty for the object as a whole. */
  readonly field: string;
  readonly reason: FieldIssueReason;
  /** What was found and what was expected. */
  readonly message: string;
}

/** @param path Keys and list positions from the object's root. */
export function fieldPath(path: readonly PropertyKey[]): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else if (/^[A-Za-z_$][\w$-]*$/.test(String(part))) text += text === '' ? String(part) : `.${String(part)}`;
    else text += `[${String(part)}]`;
  }
  return text;
}

/** The reverse of `fieldPath`, as far as its text tells: a key in brackets is a list position where it is a number. */
export function parseFieldPath(field: string): PropertyKey[] {
  const parts = field.match(/\[[^\]]*\]|[^.[\]]+/g) ?? [];
  return parts.map((part) => {
    if (!part.startsWith('[')) return part;
    const inner = part.slice(1, -1);
    return /^\d+$/.test(inner) ? Number(inner) : inner;
  });
}
