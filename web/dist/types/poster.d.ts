/** A picture of a title, as an address that holds it. */
export declare const poster: (id: string, title: string) => string;
