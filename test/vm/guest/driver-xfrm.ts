import { driverSuite } from '../../tunnel/driver-suite.ts';

driverSuite(['xfrm', 'xfrm'], { signals: ['SIGKILL'] });
