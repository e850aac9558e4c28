import { driverSuite } from './driver-suite.ts';

driverSuite(['engine', 'engine']);
