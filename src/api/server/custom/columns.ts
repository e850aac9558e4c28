import type { PrinterColumn } from '../../kinds.ts';
import { age, ageColumn, type Column, nameColumn } from '../column.ts';
import { follow, parseJsonPath } from '../jsonpath.ts';

/** The columns that a CustomResourceDefinition asks for; a path that cannot be read gives an empty column. */
export function customColumns(asked: readonly PrinterColumn[] | undefined): readonly Column[] {
  if (asked === undefined || asked.length === 0) return [nameColumn, ageColumn];
  return [
    nameColumn,
    ...asked.map(({ name, type, format, description, priority = 0, jsonPath }): Column => {
      const steps = parseJsonPath(jsonPath);
      return {
        name,
        type,
        priority,
        ...(format === undefined ? {} : { format }),
        ...(description === undefined ? {} : { description }),
        cell: (object, now) => {
          const values = steps === undefined ? [] : follow(steps, object);
          if (values.length === 0) return null;
          if (type === 'date') return age(values[0], now);
          const [first] = values;
          if (
            values.length === 1 &&
            (typeof first === 'string' || typeof first === 'number' || typeof first === 'boolean')
          )
            return first;
          return values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))).join(',');
        },
      };
    }),
  ];
}
