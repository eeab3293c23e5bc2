/** Asks the server; a refusal is an error in its own words. Where a token is needed the form for it shows. */
export declare const ask: <T>(path: string, options?: RequestInit) => Promise<T>;
/** Calls `then` when a token was given. */
export declare const onToken: (then: () => void) => void;
/** Shows what went wrong, or that nothing did. */
export declare const failed: (error: unknown) => void;
