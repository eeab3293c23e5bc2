import "./trending-row";
/** The name of a title that was shown. */
export declare const titleOf: (id: string) => string;
/** Puts the rows into a place of the page, for everyone or for a segment. */
export declare const showRows: (into: HTMLElement, segment?: string | null) => void;
