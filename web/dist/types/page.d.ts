export declare const find: <T extends HTMLElement>(id: string) => T;
/** Makes an element with a text in it. */
export declare const make: (name: string, text: string, parent?: HTMLElement) => HTMLElement;
/** A colour of the page as it is now, light or dark. */
export declare const colour: (name: string) => string;
/** How the axes of a chart look now. */
export declare const axis: () => {
    stroke: string;
    grid: {
        stroke: string;
        width: number;
    };
    ticks: {
        stroke: string;
        width: number;
    };
};
/** An axis of times in UTC: hours, and the day where one begins. */
export declare const times: () => {
    stroke: string;
    grid: {
        stroke: string;
        width: number;
    };
    ticks: {
        stroke: string;
        width: number;
    };
    space: number;
    values: (_: unknown, splits: number[], __: unknown, ___: unknown, apart: number) => string[];
};
/** Calls what draws into `box`, and again when its width or the colours change. */
export declare const redraw: (box: HTMLElement, draw: () => void) => void;
/** Grouped digits. */
export declare const grouped: (n: number) => string;
/** The time of day in UTC. */
export declare const hour: (at: number) => string;
